"""What the commands do to the terminal: escape what is not text, put off Ctrl-C."""

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The text with control characters spelled out: a file's strings must not steer the terminal."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def note(text: str) -> None:
    """Say something that is not part of the answer."""
    print(text, file=sys.stderr)


@contextmanager
def first_interrupt_noted() -> Iterator[Event]:
    """Let the first Ctrl-C only set the event, so that a step of the model is never left half done."""

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    interrupted = Event()
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
