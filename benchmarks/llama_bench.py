"""llama.cpp's own benchmarks, compiled for this CPU: one sequence, and several together."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import BATCH_PROMPT, BATCHED_NATIVE, BENCH_NATIVE, NEW_TOKENS, prefill_metric

Samples = dict[str, list[float]]


def one_sequence(
    file: Path, threads: int, prompts: Sequence[int], depths: Sequence[int] = (0,)
) -> dict[tuple[int, int], list[float]]:
    """Measure llama-bench.

    Args:
        file: the model.
        threads: number of threads.
        prompts: lengths of prompts.
        depths: numbers of tokens in the cache before decoding.

    Returns:
        Samples in tokens per second by length of prompt (0: decoding) and by depth.

    Raises:
        RuntimeError: the program failed.
    """
    options: list[Any] = ["-t", threads, "-o", "json", "-r", "2"]
    found: dict[tuple[int, int], list[float]] = {}
    for depth in depths:
        lengths = ",".join(map(str, prompts)) if depth == 0 else "0"
        asked = ["-n", NEW_TOKENS, "-p", lengths, "-d", depth]
        for test in json.loads(_output([BENCH_NATIVE, "-m", file, *options, *asked])):
            found[test["n_prompt"], depth] = test["samples_ts"]
    return found


def together(file: Path, threads: int, sequences: Sequence[int]) -> dict[int, float]:
    """Measure llama-batched-bench: tokens per second of all sequences, by their number; errors as above."""
    counts = ",".join(map(str, sequences))
    context = max(sequences) * (BATCH_PROMPT + NEW_TOKENS)
    options: list[Any] = ["-t", threads, "-c", context, "-npp", BATCH_PROMPT, "-ntg", NEW_TOKENS]
    options += ["-npl", counts, "--output-format", "jsonl"]
    lines = _output([BATCHED_NATIVE, "-m", file, *options]).splitlines()
    tests = [json.loads(line) for line in lines if line.startswith("{")]
    return {test["pl"]: test["speed_tg"] for test in tests}


def llama_bench(model: Path, threads: int) -> Samples:
    """Measure decoding and a prompt of 512 tokens of a file."""
    found = one_sequence(model, threads, (512,))
    return {"decode": found[0, 0], "prefill": found[512, 0], prefill_metric(512): found[512, 0]}


def _output(command: Sequence[Any]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"{Path(command[0]).name} failed: {said[-1]}")
    return done.stdout
