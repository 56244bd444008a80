"""llama.cpp from outside: its converter makes files, its runtime reads them."""

import atexit
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from tests.peers.released import released
from tests.peers.vocabularies import BYTE_LEVEL, VOCAB_SIZE, WORDPIECE, add_tokenizer
from tests.support import LLAMA_CPP, LLAMA_CPP_LORA

# Of models whose blocks for multi-token prediction the converter expects, and transformers does not have.
WITHOUT_BLOCKS = dict.fromkeys(("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"), "--no-mtp")


def convert(models: Mapping[str, Any], folder: Path, types: Mapping[str, str]) -> dict[str, Path]:
    """Convert transformers models, each to the type named for it (`f32` if none is)."""
    files = {name: folder / f"{name}.gguf" for name in models}
    with ExitStack() as stack:
        for name, model in models.items():
            model.save_pretrained(folder / name)
            stack.enter_context(released(folder / name, model))
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
    return files


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
    info = xllamacpp.CommonAdapterLoraInfo
    params.lora_adapters = [info(str(file), scale) for file, scale in adapters.items()]
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
