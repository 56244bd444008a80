"""The budget of rendering a chat template: seconds, and characters that it makes.

Python does not stop inside one operation. So each is charged before it is done with what it may cost: what it
makes, or what it reads where that is more. Seconds are those of the processor, because templates wait for
nothing, and other programs must not make one fail.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sized, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any

from jinja2 import TemplateError, Undefined
from jinja2.runtime import LoopContext, Macro, TemplateReference
from jinja2.utils import Namespace

SECONDS = 5.0
SIZE = 1 << 25  # characters that a rendering may make, including those that it discards
ENTRY = 8  # the cost of an entry of a list or dict, in characters
INTEGER_BITS = 1 << 16
WIDTH = 1 << 10  # the largest number for a width or a count

CONTAINERS = (Mapping, list, tuple, set, ItemsView, KeysView, ValuesView)
# What else has a text that is not the address of an object.
_WRITTEN = (
    *(str, bytes, int, float, complex, type(None), range, Undefined),
    *(Namespace, Macro, LoopContext, TemplateReference),
)


class LimitError(TemplateError):
    """The rendering takes too long or makes too much."""


class _Budget:
    def __init__(self, mark: str) -> None:
        self.end = time.thread_time() + SECONDS
        self.left = SIZE
        self.mark = mark


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def limited(mark: str = "") -> Iterator[None]:
    """Give compiling and rendering inside one budget. They raise LimitError when it is used up.

    Args:
        mark: what to write before and after the text of each `{% generation %}`.
    """
    token = _budget.set(_Budget(mark))
    try:
        yield
    finally:
        _budget.reset(token)


def generation_mark() -> str:
    """Return the mark of this rendering, empty if no mask of generated text is requested."""
    return _budget.get().mark


def spend(size: int = 1) -> str:
    """Charge a number of characters, and check the time. Raise LimitError if the budget is used up."""
    budget = _budget.get()
    budget.left -= size
    if budget.left < 0:
        raise LimitError(f"it makes more than {SIZE:,} characters")
    if time.thread_time() > budget.end:
        raise LimitError(f"it takes longer than {SECONDS:.0f} seconds")
    return ""


def spend_on(value: Any, as_text: bool = False, times: int = 1) -> Any:
    """Charge a value with all that it holds, and return it; a list may hold another many times.

    Args:
        value: the value.
        as_text: charge the length of strings, not only entries.
        times: how many times it is charged.

    Raises:
        LimitError: the budget is used up, or a number is too large.
        TemplateError: a function, an iterator or the like is to be text, which would be its address.
    """
    spend(times * max(ENTRY, len(value) if as_text and isinstance(value, str | bytes) else 0))
    if isinstance(value, CONTAINERS):
        for item in chain.from_iterable(value.items()) if isinstance(value, Mapping) else value:
            spend_on(item, as_text, times)
    elif isinstance(value, int) and value.bit_length() > INTEGER_BITS:
        raise LimitError(f"it makes a number of {value.bit_length():,} bits")
    elif as_text and not isinstance(value, _WRITTEN):
        raise TemplateError(f"it writes a {type(value).__name__} as text")
    return value


def spend_on_new(value: Any) -> Any:
    """Charge what an operation made, and return it: a string as text, a container as its entries."""
    return spend_on(value, as_text=isinstance(value, str | bytes))


def comparable(operator: str, left: Any, right: Any) -> Any:
    """Charge a comparison, of the left side with the right or with each of its entries; return the right.

    Args:
        operator: the name of the operator.
        left: its left side.
        right: its right side; an iterator is charged as it is read.
    """
    if operator in ("in", "notin") and isinstance(right, Iterator):
        return (item for item in right if spend_on(left, as_text=True) is left)
    if operator in ("in", "notin") and not isinstance(right, str | bytes | Mapping | set):
        spend_on(left, as_text=True, times=len(right) if isinstance(right, Sized) else 1)
    elif isinstance(left, CONTAINERS) and isinstance(right, CONTAINERS):
        spend_on(left, as_text=True)
    return right


def check_widths(*values: Any) -> None:
    """Raise LimitError for numbers that only fill memory or time."""
    for value in values:
        if isinstance(value, int) and abs(value) > WIDTH:
            raise LimitError(f"it asks for a width of {value}")


def spend_on_digits(text: str) -> None:
    """Charge the widths in a format, and raise LimitError for those that are too large."""
    for digits in re.findall(r"\d+", text):
        check_widths(width := int(digits.lstrip("0")[:9] or 0))
        spend(width)


# Flags and widths between the percent sign and the letter. Keys must not have parentheses inside.
_DIRECTIVE = re.compile(r"%(?:\([^()]*\))?([^a-zA-Z%]*)[hlL]?.?", re.DOTALL)


def spend_on_percent(text: str | bytes, arguments: Any = ()) -> None:
    """Charge widths, and all arguments for each directive; raise LimitError for a width as in "%99999d"."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    spend(ENTRY * text.count("%"))
    directives = _DIRECTIVE.findall(text)
    values = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    for directive in directives:
        spend_on_digits(directive)
        if "(" in directive:
            raise LimitError("it asks for a width behind a name with parentheses")
        if "*" in directive:
            check_widths(*(values if isinstance(values, list | tuple) else [values]))
    spend_on(values, as_text=True, times=len(directives))


def _width(value: Any) -> int:
    return value if isinstance(value, int) else len(value or "")


# How much a method of a string, or a filter on one, may make or cost, where that can exceed its arguments.
_GROWTH: dict[str, Callable[..., int]] = {
    "ljust": lambda s, width, *_: width,
    "rjust": lambda s, width, *_: width,
    "center": lambda s, width=80, *_: width,
    "zfill": lambda s, width: width,
    "expandtabs": lambda s, tabsize=8: len(s) * tabsize,
    "replace": lambda s, old, new, *_, **__: (s.count(old) + 1) * len(new),
    "translate": lambda s, table: len(s) * max((len(str(new)) for new in table.values()), default=1),
    "join": lambda s, parts: sum(len(s) + len(part) for part in parts),
    "split": lambda s, sep=None, maxsplit=-1: ENTRY * (s.count(sep) if sep else len(s) // 2),
    "rsplit": lambda s, sep=None, maxsplit=-1: (
        ENTRY * (s.count(sep) if sep else len(s) // 2) + len(s) * len(sep or "") // 64
    ),
    "splitlines": lambda s, *_, **__: ENTRY * len(s) // 2,
    **dict.fromkeys(
        ("strip", "lstrip", "rstrip", "trim"), lambda s, chars="": len(s) * len(chars or "") // 64
    ),
    # Python searches backwards for each character at each place
    **dict.fromkeys(("rfind", "rindex", "rpartition"), lambda s, sought, *_: len(s) * len(sought) // 64),
    "indent": lambda s, width=4, *_, **__: (s.count("\n") + 1) * _width(width),
    "wordcount": lambda s: ENTRY * len(s) // 2,
    "title": lambda s: 2 * ENTRY * len(s),
    "urlencode": lambda s: 2 * ENTRY * len(s),
    **dict.fromkeys(("e", "escape", "forceescape"), lambda s: 4 * len(s)),
}


def spend_on_growth(name: str, text: Any, *args: Any, **kwargs: Any) -> None:
    """Charge a method or a filter of this name before it is called on the text with these arguments."""
    if growth := _GROWTH.get(name):
        spend(max(growth(text if isinstance(text, str | bytes) else str(text), *args, **kwargs), 0))
