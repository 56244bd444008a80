"""Ctrl-C at the right moment: after a step, not in the middle of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from types import FrameType


@contextmanager
def first_interrupt_noted() -> Iterator[Event]:
    """Set an event on the first Ctrl-C, so that a step of the model is always completed.

    Yields:
        The event. A second Ctrl-C interrupts the program. It is never set outside of the main thread.
    """

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    interrupted = Event()
    if current_thread() is not main_thread():  # Python handles signals in the main thread only
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
