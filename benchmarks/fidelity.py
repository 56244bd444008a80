"""How far packed arithmetic differs from FP32, here and in llama.cpp, over the same tokens.

The text is a licence in chunks, each with an empty context before it; as in llama.cpp's tool, the second half
of a chunk counts. The figures compare distributions of the next token: the mean Kullback–Leibler divergence
from the FP32 model, in nats, and how often the most likely token is the same.
"""

from importlib.metadata import files
from pathlib import Path
from typing import Any

import torch

CHUNKS, CHUNK, STRIDE = 6, 256, 4
POSITIONS = range(CHUNK // 2, CHUNK, STRIDE)
TOP = 1000


def licence_text() -> str:
    """Return the Apache License, from a package that the benchmarks use anyway."""
    licence = next(path for path in files("transformers") or () if path.name == "LICENSE")
    return licence.read_text()


def load(model: Path, threads: int, **options: Any) -> tuple[torch.Tensor, Any]:
    """Return the token ids of the chunks (CHUNKS, CHUNK) and the model, loaded with `options`."""
    from torchgguf import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    ids = AutoTokenizer.from_pretrained(model).encode(licence_text())
    chunks = torch.tensor(ids[: CHUNKS * CHUNK]).view(CHUNKS, CHUNK)
    return chunks, AutoModelForCausalLM.from_pretrained(model, **options)


@torch.inference_mode()
def whole(model: Any, chunks: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities at POSITIONS (CHUNKS, positions, vocabulary), with one call a chunk."""
    return torch.stack([model(chunk[None]).logits[0, POSITIONS].log_softmax(-1) for chunk in chunks])


@torch.inference_mode()
def stepwise(model: Any, chunks: torch.Tensor) -> torch.Tensor:
    """Return the same, with the second half of each chunk token by token, as in generation."""
    half, rows = CHUNK // 2, []
    for chunk in chunks:
        cache = model(chunk[None, :half], use_cache=True).cache
        for position in range(half, CHUNK):
            out = model(chunk[None, position : position + 1], cache=cache, use_cache=True)
            if position in POSITIONS:
                rows.append(out.logits[0, -1].log_softmax(-1))
    return torch.stack(rows).view(len(chunks), len(POSITIONS), -1)


def divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Return the mean KL(reference ‖ other) of log-probabilities over the last dimension."""
    return (reference.exp() * (reference - other)).sum(-1).mean().item()


def torchgguf_fidelity(model: Path, threads: int) -> dict[str, list[float]]:
    """Compare the packed model, in one call a chunk and token by token, with the FP32 model."""
    chunks, plain = load(model, threads, dequantize=True, dtype=torch.float32)
    reference = whole(plain, chunks)
    del plain
    _, packed = load(model, threads)
    prefill = whole(packed, chunks)
    same = (prefill.argmax(-1) == reference.argmax(-1)).float().mean().item()
    decode = stepwise(packed, chunks)
    return {
        "kl": [divergence(reference, prefill)],
        "kl_decode": [divergence(reference, decode)],
        "same_top": [100 * same],
    }


def llama_cpp_server(model: Path, threads: int) -> Any:
    """Return a server of llama.cpp, with the model loaded and warmed up."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 2048, 1, True, 0
    return xllamacpp.Server(params)


def llama_cpp_fidelity(model: Path, threads: int) -> dict[str, list[float]]:
    """Compare llama.cpp with the FP32 model.

    llama.cpp returns the TOP most likely tokens; the others count as one token, which can only make its
    divergence smaller. Its cache holds what it has read: a position costs the few tokens since the last one.
    """
    chunks, plain = load(model, threads, dequantize=True, dtype=torch.float32)
    reference = whole(plain, chunks)
    del plain
    server = llama_cpp_server(model, threads)
    divergences, same = [], []
    for chunk, rows in zip(chunks.tolist(), reference, strict=True):
        for position, row in zip(POSITIONS, rows, strict=True):
            request = {"prompt": chunk[: position + 1], "max_tokens": 1, "temperature": 0, "logprobs": TOP}
            answer = server.handle_completions({**request, "cache_prompt": True})
            top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            ids = torch.tensor([entry["id"] for entry in top])
            divergences.append(divergence(*(with_rest(x) for x in (row[ids], logprobs(top)))))
            same.append(float(ids[0] == row.argmax()))
    # llama.cpp reads a few tokens at a time here, with the same kernels as in generation.
    mean = sum(divergences) / len(divergences)
    return {"kl": [mean], "kl_decode": [mean], "same_top": [100 * sum(same) / len(same)]}


def logprobs(entries: list[dict[str, float]]) -> torch.Tensor:
    """Return the log-probabilities in llama.cpp's list of likely tokens."""
    return torch.tensor([entry["logprob"] for entry in entries])


def with_rest(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Append the log-probability of all tokens that are not listed."""
    rest = (1 - log_probabilities.exp().sum()).clamp(min=1e-9).log()
    return torch.cat([log_probabilities, rest[None]])
