"""Speed on random weights of real shapes, where no model is public that the package registries have.

A shape is a config.json in `shapes/`. Its file is packed once, as Q4_K_M, without a vocabulary: the time does
not depend on which tokens are read. The peer is llama-bench, compiled for this CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.figures import (
    BENCH_NATIVE,
    LENGTHS,
    NEW_TOKENS,
    PEER_LENGTHS,
    PLACE_OF_SHAPES,
    prefill_metric,
)

PIECE = 512  # tokens read at once, as by `generate(prefill_chunk_size=512)` and by llama-bench

Samples = dict[str, list[float]]


def file_of(config: Path) -> Path:
    """Return the packed file of a shape; another process writes it if it does not exist."""
    file = PLACE_OF_SHAPES / f"{config.stem}-Q4_K_M.gguf"
    if not file.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.shapes", config, file], check=True)
    return file


def write(config: Path, file: Path) -> None:
    """Write the file of a shape."""
    import torch

    from torchgguf import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config))
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save_gguf(file, metadata={"tokenizer.ggml.model": "none"}, quantization="Q4_K_M")


def torchgguf_shape(config: Path, threads: int) -> Samples:
    """Measure the packed model: decoding, and prompts of several lengths."""
    import torch

    from torchgguf import AutoModelForCausalLM, DynamicCache

    file = file_of(config)
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(file)
    vocabulary = model.config.vocab_size

    @torch.inference_mode()
    def prefill(length: int) -> float:
        tokens, cache = torch.arange(length)[None] % vocabulary, DynamicCache()
        begin = perf_counter()
        for piece in tokens.split(PIECE, dim=1):
            model(piece, cache=cache, logits_to_keep=1)
        return perf_counter() - begin

    def decode() -> float:
        times: list[float] = []

        class Clock:
            def put(self, _: object) -> None:
                times.append(perf_counter())

            def end(self) -> None: ...

        model.generate(
            torch.arange(8)[None],
            max_new_tokens=NEW_TOKENS + 1,
            min_new_tokens=NEW_TOKENS + 1,
            do_sample=False,
            streamer=Clock(),
        )
        return NEW_TOKENS / (times[-1] - times[-1 - NEW_TOKENS])

    prefill(16)
    samples: Samples = {"decode": [decode() for _ in range(2)]}
    for length in LENGTHS:
        samples[prefill_metric(length)] = [length / prefill(length) for _ in range(2 if length < 4096 else 1)]
    return samples


def llama_bench_shape(config: Path, threads: int) -> Samples:
    """Measure the same with llama-bench."""
    command: list[Any] = [BENCH_NATIVE, "-m", file_of(config), "-t", threads, "-o", "json", "-r", "2"]
    command += ["-n", NEW_TOKENS, "-p", ",".join(map(str, PEER_LENGTHS))]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"llama-bench failed: {said[-1]}")
    samples: Samples = {}
    for test in json.loads(done.stdout):
        metric = prefill_metric(test["n_prompt"]) if test["n_prompt"] else "decode"
        samples[metric] = test["samples_ts"]
    return samples


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
