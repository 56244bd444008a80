"""Terminal output: escape control characters, and show progress."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

_COLUMNS_WITH_DETAIL = 80  # in a narrower terminal the current item would hide the numbers
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """Escape control characters, because strings of a file must not control the terminal."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def note(text: str) -> None:
    """Print a message that is not part of the result, to standard error."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(what: str, detail: Callable[[], str] = str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for bytes. It appears only on a terminal, after one second.

    Args:
        what: the title.
        detail: returns the current item.

    Yields:
        A function that is called with `(done, total)` bytes.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    options = {"unit_scale": True, "delay": 1, "leave": False, "disable": None, "dynamic_ncols": True}
    with tqdm(desc=what, unit="B", **options) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            if get_terminal_size().columns >= _COLUMNS_WITH_DETAIL:
                bar.set_postfix_str(one_line(detail()), refresh=False)
            bar.update(done - bar.n)

        yield update
