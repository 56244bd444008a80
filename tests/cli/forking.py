"""A program that has imported torch and forks itself for each command line, which then need not import it.

Usage: python -P forking.py FILENO_OF_A_SOCKET

Each message is a JSON list on one line, the arguments, the environment and the folder of a command line, with
the descriptors of its three streams. The answer is the exit code on one line. None of our own modules is
imported beforehand, nor huggingface_hub, which reads the environment when it is imported: the command line
imports both as it does for a user.
"""

import gc
import json
import os
import runpy
import socket
import sys

os.environ["GOMP_SPINCOUNT"] = "20000"  # which the command line sets before it imports torch

for _name in ("torch", "numpy", "jinja2", "rich.progress", "safetensors.torch", "tokenizers", "typer"):
    __import__(_name)
assert not {"torchgguf", "huggingface_hub"} & sys.modules.keys()


def main(fileno: int) -> None:
    """Answer all messages; return in a child, as one that is to run a command line."""
    server = socket.socket(fileno=fileno)
    gc.freeze()
    while True:
        message, streams, _, _ = socket.recv_fds(server, 1 << 16, 3)
        if not message:
            sys.exit()
        while not message.endswith(b"\n"):
            message += server.recv(1 << 16)
        child = os.fork()
        if child == 0:
            server.close()
            become(*json.loads(message), streams)
            return
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        server.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def become(arguments: list[str], environment: dict[str, str], folder: str, streams: list[int]) -> None:
    """Make this process one that was started with these."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["torchgguf", *arguments]


if __name__ == "__main__":
    main(int(sys.argv[1]))
    runpy.run_module("torchgguf", run_name="__main__", alter_sys=True)
