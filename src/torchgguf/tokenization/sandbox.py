"""Chat templates are programs from strangers: Jinja in a sandbox, with a bound on what a rendering may use.

Jinja's immutable sandbox keeps a template away from Python's internals and from changing what it is given.
It does not stop one that loops for ever or fills the memory. So each turn of a loop, call and filter looks at
the clock, and whatever makes something new (operators, literals, output, methods, filters) is charged its
size, in advance where that can be more than what there was.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from itertools import chain
from typing import Any, cast

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_join, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_eval_context
from jinja2.visitor import NodeTransformer

SECONDS = 5.0
SIZE = 1 << 25  # characters that a rendering may make, those that it throws away included
ENTRY = 8  # what an entry of a list or dict counts, in characters
INTEGER_BITS = 1 << 16
TEMPLATE_SIZE = 1 << 20  # characters
WIDTH = 1 << 10  # the largest number that may say how wide or many something is


_Function = Callable[..., Any]


class LimitError(TemplateError):
    """The rendering takes too long or makes too much."""


class _Budget:
    def __init__(self) -> None:
        self.end = time.monotonic() + SECONDS
        self.left = SIZE
        self.mark = ""  # what `{% generation %}` puts around its block, nothing if nobody wants to know


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def limited(mark: str = "") -> Iterator[None]:
    """Compiling and rendering inside have one budget: LimitError when it is used up.

    `mark` is put before and after what is inside of `{% generation %}`.
    """
    budget = _Budget()
    budget.mark = mark
    token = _budget.set(budget)
    try:
        yield
    finally:
        _budget.reset(token)


def _spend(size: int = 1) -> str:
    budget = _budget.get()
    budget.left -= size
    if budget.left < 0:
        raise LimitError(f"it makes more than {SIZE:,} characters")
    if time.monotonic() > budget.end:
        raise LimitError(f"it takes longer than {SECONDS:.0f} seconds")
    return ""


def _spend_on(value: Any, as_text: bool = False) -> Any:
    """Charge a value with all that it holds, as text or as entries: a list may hold another many times."""
    _spend(len(value) if as_text and isinstance(value, str | bytes) else ENTRY)
    if isinstance(value, Mapping | list | tuple | set):
        for item in chain.from_iterable(value.items()) if isinstance(value, Mapping) else value:
            _spend_on(item, as_text)
    return value


def _check_widths(*values: Any) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > WIDTH:
            raise LimitError(f"it asks for a width of {value}")


def _check_format(text: str | bytes, arguments: Any) -> None:
    """Refuse a width that only fills memory, as in "%99999d"; charge all for each place they can go."""
    source = text if isinstance(text, str) else text.decode("latin-1")
    _check_widths(*(int(digits[:9]) for digits in re.findall(r"\d+", source)))
    values = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    if re.search(r"%[^a-zA-Z]*\*|\{[^{}]*\{", source):
        _check_widths(*(values if isinstance(values, list | tuple) else [values]))
    before = _budget.get().left
    _spend_on(values, as_text=True)
    _spend((before - _budget.get().left) * (source.count("{") + source.count("%")))


def _width(value: Any) -> int:
    return value if isinstance(value, int) else len(value or "")


# How much a method of a string, or a filter on one, may return if that can be more than it is given.
_GROWTH: dict[str, Callable[..., int]] = {
    "ljust": lambda s, width, *_: width,
    "rjust": lambda s, width, *_: width,
    "center": lambda s, width=80, *_: width,
    "zfill": lambda s, width: width,
    "expandtabs": lambda s, tabsize=8: len(s) * tabsize,
    "replace": lambda s, old, new, *_, **__: (s.count(old) + 1) * len(new),
    "translate": lambda s, table: len(s) * max((len(str(new)) for new in table.values()), default=1),
    "join": lambda s, parts: sum(len(s) + len(part) for part in parts),
    "indent": lambda s, width=4, *_, **__: (s.count("\n") + 1) * _width(width),
    "wordwrap": lambda s, width=79, split=True, wrapstring="\n", *_, **__: len(s) * _width(wrapstring),
}

# Filters that pass on what they are given without making text of it.
# fmt: off
_STRUCTURAL = frozenset({
    "attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length",
    "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "select", "selectattr", "slice",
    "sort", "sum", "unique",
})
# fmt: on


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, on a budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, loopcontrols],
            finalize=lambda value: _spend_on(value, as_text=True),
        )
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda format: datetime.now().strftime(format),
            "namespace": _Namespace,
        }
        self.filters |= {"tojson": _tojson, "join": _join}
        self.filters = {name: _charged(name, function) for name, function in self.filters.items()}
        self.tests = {name: _timed(cast(_Function, test)) for name, test in self.tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > TEMPLATE_SIZE:
            raise LimitError(f"it is longer than {TEMPLATE_SIZE:,} characters")
        tree: nodes.Template = _Meter().visit(Parser(self, source, name, filename).parse())
        return tree

    spend = staticmethod(_spend)
    spend_on = staticmethod(_spend_on)

    @staticmethod
    def concatenate(*values: Any) -> str:
        """The operator `~`."""
        _spend_on(values, as_text=True)
        return "".join(map(str, values))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call something, which may take time and make something."""
        _spend()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes) and (growth := _GROWTH.get(__obj.__name__)):
            _spend(max(growth(owner, *args, **kwargs), 0))
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str | bytes):
            _spend(len(result))
        return _spend_on(result)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` in the sandbox, without excessive widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__, [*args, *kwargs.values()])
            return wrapped(*args, **kwargs)

        return checked

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator that can make something big of something small."""
        sizes = [_size(side) for side in (left, right)]
        if operator == "%" and isinstance(left, str | bytes):
            _check_format(left, right)
        elif operator == "+" and None not in sizes:
            _spend(sum(filter(None, sizes)))
        elif operator == "*" and sizes != [None, None]:
            times = right if sizes[1] is None else left
            _spend((sizes[0] or sizes[1] or 0) * max(times, 0) if isinstance(times, int) else 0)
        elif isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            )
            if bits > INTEGER_BITS and operator != "%":
                raise LimitError(f"it makes a number of {bits:,} bits")
        return super().call_binop(context, operator, left, right)


def _size(value: Any) -> int | None:
    if isinstance(value, list | tuple):
        return len(value) * ENTRY
    return len(value) if isinstance(value, str | bytes) else None


class _Meter(NodeTransformer):
    """Rewrites a template so that loops, literals and `~` are charged."""

    def _charged_body(self, node: Any) -> Any:
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("spend", nodes.Const(1 + text))))
        return node

    visit_For = visit_Macro = visit_CallBlock = _charged_body  # noqa: N815

    def _charged_literal(self, node: Any) -> Any:
        self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"  # the names in `{% for key, value in ... %}`
        return node if is_target else _call("spend_on", node)

    visit_List = visit_Tuple = visit_Dict = _charged_literal  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("concatenate", *node.nodes)


def _call(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


def _charged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is charged what it takes in, if it makes text of it, and what it returns."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context, which some filters ask for

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        given = args[skip:]
        if name not in _STRUCTURAL:
            _spend_on([*given, *kwargs.values()], as_text=True)
        if name in ("batch", "center", "indent", "slice", "tojson"):
            _check_widths(*given[1:], *kwargs.values())
        if name == "format":
            _check_format(str(given[0]), kwargs or given[1:])
        if growth := _GROWTH.get(name) if name != "join" else None:
            _spend(max(growth(str(given[0]), *given[1:], **kwargs), 0))
        result = function(*args, **kwargs)
        if isinstance(result, str):
            _spend(len(result))
        return _spend_on(result)

    return filtered


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A test that looks at the clock."""

    @functools.wraps(function)
    def tested(*args: Any) -> Any:
        _spend()
        return function(*args)

    return tested


@pass_eval_context
def _join(eval_ctx: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """Jinja's filter `join`, charged for its parts before they are joined."""
    parts = list(value if attribute is None else map(make_attrgetter(eval_ctx.environment, attribute), value))
    _spend(len(parts) * len(str(d)))
    _spend_on(parts, as_text=True)
    return str(do_join(eval_ctx, parts, d))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's escapes for HTML, charged while it is written."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    chunks = []
    for chunk in encoder.iterencode(value):
        _spend(len(chunk))
        chunks.append(chunk)
    return "".join(chunks)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


class _Namespace(Namespace):
    """Jinja's namespace, which shows nothing of what it holds and takes no names with underscores."""

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
        raise SecurityError(f"a namespace takes no name that starts with an underscore, as {name!r} does")


class _GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """The block itself, between marks if somebody wants to know where it is."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        mark = _budget.get().mark
        return f"{mark}{caller()}{mark}"
