"""Functions and filters for chat templates: Jinja's, written anew where they could be misused.

Not one is a class, whose methods would accept any object.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.filters import do_join, make_attrgetter
from jinja2.utils import Cycler, Joiner, Namespace, pass_environment, pass_eval_context

from torchgguf.tokenization.chat.budget import check_widths, spend, spend_on, spend_on_percent

_OBJECT = 128  # the cost of an object that holds others, in characters


@pass_eval_context
def join_parts(eval_ctx: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """Join strings as Jinja's filter `join` does, charged for the parts first."""
    parts = list(value if attribute is None else map(make_attrgetter(eval_ctx.environment, attribute), value))
    spend(len(parts) * len(str(d)))
    spend_on(parts, as_text=True)
    return str(do_join(eval_ctx, parts, d))


@pass_environment
def sum_up(environment: Any, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """Add values as Jinja's filter `sum` does, charged for lists, of which each step makes a new one."""
    parts = list(value if attribute is None else map(make_attrgetter(environment, attribute), value))
    if isinstance(start, list | tuple):
        spend_on([start, *parts], times=len(parts))
    return sum(parts, start)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON without Jinja's escapes for HTML, charged while it is written."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    chunks = []
    for chunk in encoder.iterencode(value):
        spend(len(chunk))
        chunks.append(chunk)
    return "".join(chunks)


def strftime_now(format: str) -> str:
    """Return the date and time in this format, as `datetime.strftime` does."""
    check_widths(len(format))
    spend_on_percent(format)
    return datetime.now().strftime(format)


def raise_exception(message: Any) -> None:
    """Refuse the conversation: raise TemplateError."""
    raise TemplateError(str(spend_on(message, as_text=True)))


def cycler(*items: Any) -> Cycler:
    """Return Jinja's `cycler`."""
    return Cycler(*spend_on(items))


def joiner(sep: str = ", ") -> Joiner:
    """Return Jinja's `joiner`."""
    return Joiner(sep)


def namespace(*args: Any, **kwargs: Any) -> _Namespace:
    """Return a restricted form of Jinja's `namespace`."""
    spend(_OBJECT)
    return _Namespace(*args, **kwargs)


class Dict:
    """The part of `dict` that templates need."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return a new dict."""
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        """Return a dict with the same value for all keys."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """Jinja's namespace, without its contents in `repr`, and without names that start with underscores."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace must not have names that start with an underscore, got {name!r}")


FILTERS = {"join": join_parts, "sum": sum_up, "tojson": tojson}
FUNCTIONS = {
    "cycler": cycler,
    "dict": Dict(),
    "joiner": joiner,
    "namespace": namespace,
    "raise_exception": raise_exception,
    "strftime_now": strftime_now,
}
