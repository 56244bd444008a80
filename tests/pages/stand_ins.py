"""Small random models with the files, the names and the layouts of those on the Hub that the pages name."""

import json
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save

from tests.support import VOCABS
from torchgguf import open_gguf

MERGES = 400  # of GPT-2's own, the first ones
END = "<|endoftext|>"

# What is in all config.json of OpenAI's, sizes aside; some of it no one reads any more.
OPENAI_CONFIG = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 512,
    "n_positions": 512,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}


def openai_gpt2(**fields: Any) -> dict[str, bytes]:
    """The files of a `openai-community/gpt2`, with GPT-2's own vocabulary, cut short.

    As there, weights are named as in a model without a head, and causal masks are among them.
    """
    vocabulary, merges = _vocabulary()
    end = vocabulary[END]
    config = {**OPENAI_CONFIG, "bos_token_id": end, "eos_token_id": end, "vocab_size": end + 1, **fields}
    torch.manual_seed(0)
    # Larger weights than new models have, so that tokens are not all equally likely.
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**config, "initializer_range": 0.15}))
    tensors = {name: weight.contiguous() for name, weight in model.transformer.state_dict().items()}
    mask = torch.ones(config["n_ctx"], config["n_ctx"]).tril()[None, None]
    tensors |= {f"h.{i}.attn.bias": mask.clone() for i in range(config["n_layer"])}
    ends = {"bos_token_id": end, "eos_token_id": end}
    return {
        "config.json": _json(config),
        "generation_config.json": _json({"_from_model_config": True, **ends}),
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges), ""]).encode(),
        "model.safetensors": save(tensors, metadata={"format": "pt"}),
        "README.md": b"---\nlanguage: en\n---\n# GPT-2\n",
        "tokenizer.json": _pipeline(vocabulary, merges),
        "tokenizer_config.json": _json({"model_max_length": config["n_positions"]}),
        "vocab.json": _json(vocabulary),
    }


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The bytes, the first merges, and the end of a text, as ever the last token."""
    with open_gguf(VOCABS / "ggml-vocab-gpt-2.gguf") as file:
        tokens = file.metadata["tokenizer.ggml.tokens"][: 256 + MERGES]
        merges = file.metadata["tokenizer.ggml.merges"][:MERGES]
    return {token: i for i, token in enumerate([*tokens, END])}, [tuple(m.split(" ")) for m in merges]


def _pipeline(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> bytes:
    tokenizer = tokenizers.ByteLevelBPETokenizer(vocabulary, merges)
    tokenizer.add_special_tokens([END])
    return tokenizer.to_str().encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
