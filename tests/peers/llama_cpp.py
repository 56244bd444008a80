"""llama.cpp from outside: its converter makes files, its runtime reads them."""

import atexit
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.support import LLAMA_CPP, LLAMA_CPP_LORA, ROOT

TEXT = (ROOT / "tests" / "data" / "gpl-3.0.txt").read_text()

VOCAB_SIZE = 400
# Models with a byte-level vocabulary, and how theirs splits texts: the others get one of sentencepiece.
BYTE_LEVEL = {
    "bloom": "bloom",
    "cohere": "command-r",
    "cohere2": "command-r",
    "deepseek_v2": "deepseek-llm",
    "deepseek_v3": "deepseek-v3",
    "dots1": "qwen2",
    "exaone4": "exaone4",
    "exaone_moe": "exaone-moe",
    "falcon": "falcon",
    "falcon_h1": "falcon-h1",
    "falcon_mamba": "falcon",
    "glm": "chatglm-bpe",
    "glm4": "glm4",
    "glm4_moe": "glm4",
    "gpt2": "gpt-2",
    "gpt_bigcode": "starcoder",
    "gpt_neox": "olmo",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan",
    "kimi_linear": "kimi-k2",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "mamba": "mpt",
    "mamba2": "mpt",
    "jais2": "gpt-2",
    "minimax_m2": "minimax-m2",
    "olmo": "olmo",
    "nemotron_h": "pixtral",
    "modernbert": "modern-bert",
    "olmo2": "dbrx",
    "olmo3": "dbrx",
    "olmoe": "olmo",
    "phi": "phi-2",
    "gpt_oss": "gpt-4o",
    "granite": "refact",
    "granitemoe": "refact",
    "granitemoehybrid": "refact",
    "granitemoeshared": "refact",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2",
    "qwen3": "qwen2",
    "qwen3_5_moe_text": "qwen35",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen2",
    "qwen3_next": "qwen2",
    "seed_oss": "seed-coder",
    "stablelm": "stablelm2",
    "starcoder2": "starcoder",
}
# Models with a vocabulary of WordPiece.
WORDPIECE = {"bert": "bert-bge", "nomic_bert": "bert-bge"}
# Models whose vocabulary is one of sentencepiece with a list of merges.
LISTED = ("gemma4_text",)
# Models with a unigram vocabulary of sentencepiece.
UNIGRAM = ("t5", "umt5")
# Tokens that the converter looks for.
MORE_TOKENS = {"glm4_moe": ("[gMASK]", "<|observation|>")}
# Models whose vocabulary of sentencepiece puts no space before a text.
UNPREFIXED = ("gemma", "gemma2", "gemma3_text", "gemma3n_text")

# Of models whose blocks for multi-token prediction the converter expects, and transformers does not have.
WITHOUT_BLOCKS = dict.fromkeys(("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"), "--no-mtp")

# Classes whose names in released checkpoints are the only ones that the converter knows.
RELEASED = {"PhimoeForCausalLM": "PhiMoEForCausalLM", "UMT5EncoderModel": "T5EncoderModel"}


def _without_experts(config: dict[str, Any]) -> None:
    """Name the kinds of layers by letters, as only released configs of models without experts do.

    The converter must read the file itself: transformers' config states a number of experts in any case.
    """
    kinds = config["layers_block_type"]
    if "moe" not in kinds:
        letters = {"linear_attention": "M", "full_attention": "*", "mlp": "-"}
        config["hybrid_override_pattern"] = "".join(letters[kind] for kind in kinds)
        config["num_hidden_layers"] = len(kinds)
        for key in ("model_type", "num_experts_per_tok", "n_routed_experts", "n_group", "topk_group"):
            del config[key]


def _older_layer_types(config: dict[str, Any]) -> None:
    """Name the kinds of layers as released configs do; transformers' config would rename them."""
    names = {"linear_attention": "mamba", "full_attention": "attention"}
    config["layer_types"] = [names[kind] for kind in config["layer_types"]]
    del config["model_type"]


def _older_rotated_part(config: dict[str, Any]) -> None:
    """Name the rotated part as released configs do; transformers' config would rename it."""
    config["rotary_pct"] = config["rope_parameters"]["partial_rotary_factor"]
    del config["model_type"]


def _lists_of_experts(config: dict[str, Any]) -> None:
    """State sizes and numbers of experts layer by layer."""
    numbers = {
        "moe_intermediate_size": config["intermediate_size"],
        "moe_topk": config["moe_topk"],
        "num_shared_expert": 1,
    }
    config |= {name: [number] * config["num_hidden_layers"] for name, number in numbers.items()}


# Models whose released configs state something in another way, the only one that the converter knows.
AS_RELEASED = {
    "gpt_neox": _older_rotated_part,
    "granitemoehybrid": _older_layer_types,
    "hunyuan_v1_moe": _lists_of_experts,
    "nemotron_h": _without_experts,
}


def convert(models: Mapping[str, Any], folder: Path, types: Mapping[str, str]) -> dict[str, Path]:
    """Convert transformers models, each to the type named for it (`f32` if none is)."""
    files = {name: folder / f"{name}.gguf" for name in models}
    stated: dict[Path, str] = {}
    for name, model in models.items():
        model.save_pretrained(folder / name)
        if model.config.model_type == "kimi_linear":
            _release_kimi(folder / name)
        if (stored := type(model).__name__) in RELEASED:
            config = folder / name / "config.json"
            config.write_text(config.read_text().replace(stored, RELEASED[stored]))
        if model.config.model_type in AS_RELEASED:
            config = folder / name / "config.json"
            values = json.loads(stated.setdefault(config, config.read_text()))
            AS_RELEASED[model.config.model_type](values)
            config.write_text(json.dumps(values))
        add_tokenizer(folder / name, model.config.model_type)
    convert_folders(
        (
            folder / name,
            files[name],
            types.get(name, "f32"),
            {**BYTE_LEVEL, **WORDPIECE}.get(model.config.model_type, ""),
            *filter(None, [WITHOUT_BLOCKS.get(model.config.model_type)]),
        )
        for name, model in models.items()
    )
    for config, text in stated.items():
        config.write_text(text)
    return files


def _release_kimi(folder: Path) -> None:
    """State config and names as released checkpoints do: the converter does not know transformers' own."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    full = [i + 1 for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
    config["linear_attn_config"] = {
        "full_attn_layers": full,
        "kda_layers": [i + 1 for i in range(config["num_hidden_layers"]) if i + 1 not in full],
        "head_dim": config["linear_head_dim"],
        "num_heads": config["linear_num_heads"],
        "short_conv_kernel_size": config["linear_conv_kernel_dim"],
    }
    config["first_k_dense_replace"] = config["mlp_layer_types"].count("dense")
    config["moe_router_activation_func"] = "sigmoid"
    path.write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    dense = re.compile(r"block_sparse_moe\.(gate|up|down)_proj")
    save_file(
        {dense.sub(r"mlp.\1_proj", name): each for name, each in tensors.items()},
        folder / "model.safetensors",
    )


def add_tokenizer(folder: Path, model_type: str) -> None:
    """Give a folder a tokenizer of the kind that its architecture has."""
    if model_type in BYTE_LEVEL:
        _byte_level(MORE_TOKENS.get(model_type, ())).save(str(folder / "tokenizer.json"))
        # Not the class of the architecture, which adds its own special tokens.
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    elif model_type in UNIGRAM:
        (folder / "spiece.model").write_bytes(_unigram())
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        stated = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **names}
        (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    elif model_type in LISTED:
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        listed = transformers.PreTrainedTokenizerFast(tokenizer_object=_listed(), **names)
        listed.save_pretrained(folder)
    elif model_type in WORDPIECE:
        transformers.BertTokenizer(vocab=_wordpiece()).save_pretrained(folder)
    else:
        (folder / "tokenizer.model").write_bytes(_sentencepiece(model_type not in UNPREFIXED))


def convert_folders(jobs: Iterable[tuple[Any, ...]]) -> None:
    """Convert folders to files of a type; `split` says how a byte-level vocabulary splits texts."""
    for folder, out, type, split, *more in jobs:
        run_converter([str(folder), "--outfile", str(out), "--outtype", type, *more], split)


def convert_adapter(adapter: Path, base: Path, out: Path) -> None:
    """Convert a PEFT adapter to a file of type f32, given the folder of its model."""
    script = LLAMA_CPP_LORA / "convert_lora_to_gguf.py"
    run_converter([str(adapter), "--base", str(base), "--outfile", str(out)], script=script)


def run_converter(
    arguments: Sequence[str], split: str = "", script: Path = LLAMA_CPP / "convert_hf_to_gguf.py"
) -> None:
    """Run the converter with these arguments; `split` as in `tests/peers/convert.py`."""
    process, log = _converter()
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps([str(script), arguments, split]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    error = json.loads(answer) if answer else f"its process ended with {process.wait()}"
    assert not error, f"{error}\n{log.read_text()[-2000:]}"


@cache
def _converter() -> tuple[subprocess.Popen[str], Path]:
    """Start the process that converts, which lives until the tests end, and return its log besides."""
    # `-P`: the program's folder has a `transformers` of ours, which is not the one to be imported.
    command = [sys.executable, "-P", str(Path(__file__).with_name("convert.py")), str(LLAMA_CPP)]
    folder = tempfile.TemporaryDirectory()
    log = Path(folder.name) / "log.txt"
    with log.open("w") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True
        )
    atexit.register(folder.cleanup)
    atexit.register(process.communicate)  # which runs first
    return process, log


@cache
def _byte_level(more: tuple[str, ...]) -> tokenizers.ByteLevelBPETokenizer:
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|user|>", *more]
    tokenizer.train_from_iterator(TEXT.splitlines(), VOCAB_SIZE, special_tokens=special, show_progress=False)
    return tokenizer


@cache
def _listed() -> tokenizers.Tokenizer:
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=names, show_progress=False)
    learned.train_from_iterator(TEXT.splitlines(), trainer)
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    # Anew: of those learned, the tokens of bytes would be special.
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(model["vocab"], merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


@cache
def _wordpiece() -> dict[str, int]:
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXT.splitlines(), VOCAB_SIZE, show_progress=False)
    return tokenizer.get_vocab()


@cache
def _unigram() -> bytes:
    out = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=out,
        vocab_size=VOCAB_SIZE,
        model_type="unigram",
        minloglevel=2,
        **ids,
    )
    return out.getvalue()


@cache
def _sentencepiece(prefix: bool) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=out,
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        model_type="bpe",
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    return out.getvalue()


def greedy_text(
    path: Path,
    prompt: str | list[int],
    tokens: int = 24,
    threads: int = 1,
    adapters: Mapping[Path, float] = MappingProxyType({}),
) -> str:
    """llama.cpp's greedy continuation of a prompt, a text or its tokens, with adapters and their factors."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 512
    params.cpuparams.n_threads = threads
    params.warmup = False
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(file), scale) for file, scale in adapters.items()
    ]
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": prompt, "max_tokens": tokens, "temperature": 0.0})
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return answer["choices"][0]["text"]


def next_log_probabilities(path: Path, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """llama.cpp's logarithms of the probabilities of all tokens after texts of ids, each `(vocab_size,)`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 256
    params.n_parallel = params.cpuparams.n_threads = 1
    params.warmup = False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    found = []
    # The token that is chosen is always the same, a whole character: others end without an answer.
    chosen = {"max_tokens": 1, "temperature": 0.0, "logit_bias": [[VOCAB_SIZE - 1, 1000.0]]}
    for text in texts:
        question = {"prompt": [*text], **chosen, "logprobs": VOCAB_SIZE}
        answer = server.handle_completions(question)
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        scored = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert sorted(each["id"] for each in scored) == list(range(VOCAB_SIZE))
        found.append(torch.tensor([each["logprob"] for each in sorted(scored, key=lambda each: each["id"])]))
    return found


def top_tokens(path: Path, ids: Sequence[int], every: int, threads: int) -> tuple[list[int], list[float]]:
    """llama.cpp's most likely tokens after every `every` tokens of a text, and their log-probabilities."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = len(ids) + 8
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.warmup = False
    server = xllamacpp.Server(params)
    found = []
    for end in range(every, len(ids) + 1, every):  # it computes what is new in each prompt
        prompt = {"prompt": [*ids[:end]], "max_tokens": 1, "temperature": 0.0, "logprobs": 1}
        answer = server.handle_completions(prompt)
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        found.append(answer["choices"][0]["logprobs"]["content"][0])
    return [each["id"] for each in found], [each["logprob"] for each in found]


def embeddings(path: Path, texts: Sequence[str | list[int]], pooling: str | None = None) -> torch.Tensor:
    """llama.cpp's normalised vectors of texts, or of their tokens; by default pooled as the file states."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.embedding = True
    if pooling is not None:
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling.upper()}")
    server = xllamacpp.Server(params)
    answer = server.handle_embeddings({"input": [*texts]})
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    assert "data" in answer, answer
    return torch.tensor([each["embedding"] for each in answer["data"]])


def rerank(path: Path, query: str, documents: Sequence[str]) -> torch.Tensor:
    """llama.cpp's scores of documents for a query."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_parallel = params.cpuparams.n_threads = 1
    params.warmup = False
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    answer = xllamacpp.Server(params).handle_rerank({"query": query, "documents": [*documents]})
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    assert "results" in answer, answer
    ordered = sorted(answer["results"], key=lambda each: each["index"])
    return torch.tensor([each["relevance_score"] for each in ordered])
