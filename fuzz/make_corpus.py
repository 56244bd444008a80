"""Write the corpus anew: the smallest sound files of each architecture and each kind of tokenizer."""

from __future__ import annotations

import json
from typing import Any

import torch

from fuzz.targets import CORPUS
from torchgguf.container import Metadata, write_gguf
from torchgguf.container.value_types import ArrayType, ValueType
from torchgguf.models import AutoConfig, AutoModelForCausalLM

# Of the many architectures, those that have rules, layouts or parts that no other has.
_MODEL_TYPES = (
    *("bloom", "cohere2", "gemma2", "gemma3_text", "gpt2", "gpt_oss", "granitemoe", "llama", "ministral3"),
    *("mistral", "mixtral", "phi3", "qwen2", "qwen2_moe", "qwen3", "stablelm"),
)
_SIZES: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
}
_OWN: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 24, "hidden_size": 8, "n_layer": 2, "n_head": 2, "seq_length": 16},
    "gpt2": {"vocab_size": 24, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16},
    "cohere2": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 4},
    "gemma2": {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4},
    "gemma3_text": {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 4},
    "gpt_oss": {"head_dim": 4, "num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 4},
    "granitemoe": {"num_local_experts": 3, "num_experts_per_tok": 2},
    "ministral3": {"head_dim": 4},
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3": {"head_dim": 4},
    "stablelm": {"partial_rotary_factor": 0.5, "qk_layernorm": True},
    "phi3": {"original_max_position_embeddings": 8, "pad_token_id": 0, "eos_token_id": 2},
    "qwen2_moe": {
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 4,
        "shared_expert_intermediate_size": 8,
    },
}
_PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    "▁",
    "e",
    "l",
    "o",
    "h",
    "▁h",
    "ll",
    "ell",
    "ello",
    "▁hello",
    "<0x0A>",
    "1",
    "2",
]
_BYTES = [
    "h",
    "e",
    "l",
    "o",
    "w",
    "Ġ",
    "1",
    "2",
    "3",
    ",",
    "he",
    "ll",
    "llo",
    "hello",
    "Ġw",
    "Ċ",
    "<s>",
    "</s>",
]
_WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "▁hello",
    "▁wor",
    "ld",
    "▁1",
    "2",
    "3",
    "▁,",
    "▁h",
    "##x",
]
_VOCABULARIES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "spm": ("llama", _PIECES, {}),
    "bpe": ("gpt2", _BYTES, {"pre": "gpt-2", "merges": ["h e", "l l", "ll o", "he llo", "Ġ w"]}),
    "wordpiece": ("bert", _WORDS, {"unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3}),
    "unigram": ("t5", ["<pad>", "</s>", "<unk>", *_PIECES[3:]], {"unknown_token_id": 2, "eos_token_id": 1}),
}
_TEMPLATE = "{% for m in messages %}{{ '<s>' + m['content'] }}{% endfor %}"


def _vocabulary(kind: str) -> Metadata:
    model, tokens, more = _VOCABULARIES[kind]
    metadata = Metadata({"general.architecture": "llama", "tokenizer.ggml.model": model})
    metadata["tokenizer.ggml.tokens"] = tokens
    special = [3 if token.startswith(("<", "[")) and "0x" not in token else 1 for token in tokens]
    types = [6 if token.startswith("<0x") else kind for token, kind in zip(tokens, special, strict=True)]
    metadata.set("tokenizer.ggml.token_type", types, ArrayType(ValueType.INT32))
    if kind in ("spm", "unigram"):
        metadata["tokenizer.ggml.scores"] = [-float(i) for i in range(len(tokens))]
    for key, value in more.items():
        metadata[f"tokenizer.ggml.{key}"] = value
    metadata["tokenizer.chat_template"] = _TEMPLATE
    return metadata


def _tokenizer_json() -> dict[str, Any]:
    added = [
        {"id": 16 + i, "content": content, "special": True, "normalized": False, "single_word": False}
        | {"lstrip": False, "rstrip": False}
        for i, content in enumerate(("<s>", "</s>"))
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merges = ["h e", "l l", "ll o", "he llo", "Ġ w"]
    model = {"type": "BPE", "vocab": {token: i for i, token in enumerate(_BYTES[:16])}, "merges": merges}
    rest = {"normalizer": None, "pre_tokenizer": level, "post_processor": level, "decoder": level}
    return {"version": "1.0", "added_tokens": added, **rest, "model": model}


def main() -> None:
    """Write all files."""
    CORPUS.mkdir(exist_ok=True)
    torch.manual_seed(0)
    for model_type in _MODEL_TYPES:
        sizes = {**({} if model_type in ("bloom", "gpt2") else _SIZES), **_OWN.get(model_type, {})}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
        vocabulary = _vocabulary("bpe" if "qwen" in model_type else "spm")
        del vocabulary["general.architecture"]
        model.save_gguf(CORPUS / f"{model_type}.gguf", metadata=vocabulary)
        shapes = {
            name: [*value.shape] for name, value in model.state_dict().items() if not _tied(model, name)
        }
        files = {
            "config.json": json.loads(model.config.to_json_string(use_diff=False)),
            "generation_config.json": {"eos_token_id": 2, "temperature": 0.7},
            "tokenizer.json": _tokenizer_json(),
            "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "chat_template": _TEMPLATE},
            "weights": shapes,
        }
        (CORPUS / f"{model_type}.folder.json").write_text(json.dumps(files, ensure_ascii=False) + "\n")
    for kind in _VOCABULARIES:
        write_gguf(CORPUS / f"vocabulary-{kind}.gguf", _vocabulary(kind), {})


def _tied(model: Any, name: str) -> bool:
    return model.tied_head is not None and name == "lm_head.weight"


if __name__ == "__main__":
    main()
