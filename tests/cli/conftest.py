"""The command line as a user has it: a process of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "torchgguf"]
TIMEOUT = 120  # seconds; far more than anything takes, so that nothing hangs for ever


@pytest.fixture(scope="session")
def forking() -> Iterator[socket.socket]:
    """A socket to the process of `tests/cli/forking.py`."""
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    program = [sys.executable, "-P", str(Path(__file__).with_name("forking.py")), str(theirs.fileno())]
    with ours, subprocess.Popen(program, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL) as process:
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()  # upon which the process ends
            process.wait(TIMEOUT)


@pytest.fixture
def torchgguf(forking) -> Run:
    """`torchgguf(*arguments, input="", env=None)`: run it to its end, with files for streams."""

    def run(
        *arguments: object, input: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        with TemporaryFile("w+") as stdin, TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
            stdin.write(input)
            stdin.seek(0)
            message = json.dumps([given, dict(os.environ if env is None else env), str(Path.cwd())]) + "\n"
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            sent = socket.send_fds(forking, [message.encode()], streams)
            forking.sendall(message.encode()[sent:])
            answer = forking.recv(64)
            assert answer, "the process that forks has ended"
            for stream in (stdout, stderr):
                stream.seek(0)
            return subprocess.CompletedProcess(given, int(answer), stdout.read(), stderr.read())

    return run
