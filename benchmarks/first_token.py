"""The time from the start of a process to its first token: what a user of a command line waits for.

Each sample starts a new program and ends when the first byte of its answer arrives. Files are in the memory
of the system then, and Python's bytecode is on the disk, as after any first run.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from benchmarks.figures import COMPLETION_NATIVE

Samples = dict[str, list[float]]

PROMPT = "The history of the lighthouse begins"
METRIC = "first_token"
_REPEATS = 3


def seconds_to_first_byte(command: Sequence[str]) -> float:
    """Return the time from the start of a program to the first byte that it prints.

    Raises:
        RuntimeError: it prints nothing; the message contains the last line of its log.
    """
    # Without cached bytecode Python would compile every module again.
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = perf_counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        first = program.stdout.read(1)
        seconds = perf_counter() - begin
        said = program.stderr.read().decode(errors="replace").strip().splitlines() or ["no output"]
        program.stdout.read()
    if not first:
        raise RuntimeError(f"{Path(command[0]).name} printed nothing: {said[-1]}")
    return seconds


def samples(command: Sequence[str]) -> Samples:
    """Return samples of a program, after one run that is not counted."""
    seconds_to_first_byte(command)
    return {METRIC: [seconds_to_first_byte(command) for _ in range(_REPEATS)]}


def torchgguf_first_token(model: Path, threads: int) -> Samples:
    """Measure `torchgguf run`."""
    options = ["--raw", "--max-new-tokens", "1", "--threads", str(threads)]
    return samples([sys.executable, "-m", "torchgguf", "run", str(model), PROMPT, *options])


def import_torch(model: Path, threads: int) -> Samples:
    """Measure `import torch`, without which no model of torch's runs."""
    return samples([sys.executable, "-c", "import torch; print(1)"])


def llama_cpp_first_token(model: Path, threads: int) -> Samples:
    """Measure llama.cpp's own command line, compiled for this CPU."""
    options = ["-n", "1", "-t", str(threads), "--no-display-prompt", "-no-cnv"]
    return samples([str(COMPLETION_NATIVE), "-m", str(model), "-p", PROMPT, *options])
