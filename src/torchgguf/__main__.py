"""The command `torchgguf`, and `python -m torchgguf`."""

import os
import signal
import sys
from types import FrameType


def run_process() -> int:
    """Run the command line of the process, and return the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, _on_interrupt)
    from torchgguf.cli import main

    return main()


def _on_interrupt(signum: int, frame: FrameType | None) -> None:
    """Interrupt the program, but end it at once where a module is being imported.

    Importing takes seconds, and modules turn an interrupt into errors of their own: a library that is half
    imported stays so.
    """
    place = frame
    while place is not None:
        if place.f_code.co_filename.startswith("<frozen importlib"):
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\n")
            os._exit(128 + signum)
        place = place.f_back
    signal.default_int_handler(signum, frame)


if __name__ == "__main__":
    sys.exit(run_process())
