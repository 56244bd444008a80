"""The command line as a user has it: a process of its own."""

import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "torchgguf"]
TIMEOUT = 120  # seconds; far more than anything takes, so that nothing hangs for ever


@pytest.fixture
def torchgguf() -> Run:
    """`torchgguf(*arguments, input="", env=None)`: run it to its end, with pipes for streams."""

    def run(
        *arguments: object, input: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(command, input=input, env=env, capture_output=True, text=True, timeout=TIMEOUT)

    return run
