"""What the commands do to the terminal: escape what is not text, show how far they are, put off Ctrl-C."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The text with control characters spelled out: a file's strings must not steer the terminal."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def note(text: str) -> None:
    """Say something that is not part of the answer."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(what: str, detail: Callable[[], str] = str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told of bytes, `(done, total)`; it shows itself to a terminal after a second.

    `detail` says what is being worked at.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    with tqdm(desc=what, unit="B", unit_scale=True, delay=1, leave=False, disable=None) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(one_line(detail()), refresh=False)
            bar.update(done - bar.n)

        yield tell


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
