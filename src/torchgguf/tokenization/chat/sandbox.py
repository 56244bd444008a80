"""`ChatEnvironment`: Jinja in a sandbox with a budget, because chat templates are programs from strangers.

Jinja's immutable sandbox keeps a template from Python's internals and from changing its variables. It does
not stop one that loops for ever or fills the memory. So each turn of a loop, call and filter checks the time,
and whatever makes something new (operators, literals, slices, output, methods, filters) or compares what may
be large is charged, as `budget` states.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import pass_context
from jinja2.visitor import NodeTransformer
from markupsafe import EscapeFormatter, Markup

from torchgguf.tokenization.chat.budget import (
    ENTRY,
    INTEGER_BITS,
    LimitError,
    check_widths,
    comparable,
    generation_mark,
    spend,
    spend_on,
    spend_on_digits,
    spend_on_growth,
    spend_on_new,
    spend_on_percent,
)
from torchgguf.tokenization.chat.template_functions import FILTERS, FUNCTIONS

TEMPLATE_SIZE = 1 << 16  # characters, four times the longest known template

_Function = Callable[..., Any]

# Filters that return their argument, or a part of it, without reading its text.
# fmt: off
_STRUCTURAL = frozenset({
    "attr", "batch", "count", "d", "default", "first", "items", "last", "length", "list", "map", "random",
    "reject", "rejectattr", "reverse", "select", "selectattr", "slice",
})
# fmt: on
_LISTING = frozenset({"batch", "list", "slice", "sort", "unique"})  # turn a string into a list of characters
_WIDE = frozenset(
    {"batch", "center", "indent", "round", "slice", "tojson"}
)  # have a width or a precision as an argument
_ROWS = frozenset({"batch", "slice"})  # return lists one after the other
_WITHOUT = frozenset(
    {"pprint", "striptags", "urlize", "wordwrap"}
)  # quadratic, and templates do not need them
_AS_TEXT = frozenset({"lower", "upper"})  # tests that convert anything to text
_CODECS = frozenset({"ascii", "latin-1", "utf-8", "utf8", "ignore", "replace", "strict"})

_OF_THE_LOOP = ("_loop_vars", "_block_vars")  # which Jinja adds to a call's arguments, and removes again

_COMPARISONS: dict[str, _Function] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Jinja with the options that transformers has for chat templates, on a budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, loopcontrols],
            finalize=_charged_output,
        )
        self.globals = {**FUNCTIONS, "range": self.globals["range"]}
        filters = {**self.filters, **FILTERS}
        self.filters = {name: _charged(name, filters[name]) for name in filters if name not in _WITHOUT}
        self.tests = {name: _charged_test(name, cast(_Function, test)) for name, test in self.tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > TEMPLATE_SIZE:
            raise LimitError(f"it is longer than {TEMPLATE_SIZE:,} characters")
        tree: nodes.Template = _Meter().visit(Parser(self, source, name, filename).parse())
        return tree

    spend = staticmethod(spend)

    @staticmethod
    def made(value: Any) -> Any:
        """Return something new, which `call` charges as the result of a call."""
        return value

    @staticmethod
    def concatenate(*values: Any) -> str:
        """Return the result of the operator `~`."""
        spend_on(values, as_text=True)
        return "".join(map(str, values))

    @staticmethod
    def compare(operators: tuple[str, ...], *values: Any) -> bool:
        """Return whether all comparisons hold: the operators stand between the values."""
        for name, (left, right) in zip(operators, pairwise(values), strict=True):
            if not _COMPARISONS[name](left, comparable(name, left, right)):
                return False
        return True

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call something, charged for time and for its result."""
        spend()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes):  # else reading an iterator here would exhaust it
            args = tuple(list(value) if isinstance(value, Iterator) else value for value in args)
        named = {name: value for name, value in kwargs.items() if name not in _OF_THE_LOOP}
        arguments = [*args, *named.values()]
        if isinstance(owner, str | bytes):
            if __obj.__name__ in _WITHOUT:
                raise LimitError(f"it asks for {__obj.__name__}, which takes longer than it may")
            if __obj.__name__ in ("encode", "decode") and not _CODECS.issuperset(map(str, arguments)):
                raise LimitError(f"it takes longer than it may to {__obj.__name__} what is not UTF-8")
            spend_on(arguments, as_text=True)
            spend_on_growth(__obj.__name__, owner, *args, **named)
        elif isinstance(owner, list | tuple):  # whose methods search for the argument
            spend_on(arguments, as_text=True, times=len(owner))
        elif isinstance(owner, int):
            check_widths(*arguments)
        elif isinstance(owner, LoopContext):  # which compares them with those of the previous turn
            spend_on(arguments, as_text=True)
        elif isinstance(__obj, Macro):  # arguments without a name become a tuple and a dict
            more = [value for name, value in named.items() if name not in __obj.arguments]
            spend_on([*args[len(__obj.arguments) :], *more])
        result = super().call(__context, __obj, *args, **kwargs)
        return spend_on(result, as_text=isinstance(owner, str | bytes) or isinstance(result, str | bytes))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an entry, charged for the argument, which may be hashed or written into an error."""
        return super().getitem(obj, spend_on(argument, as_text=True))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `str.format` or `str.format_map` in the sandbox, charged for each field."""
        if super().wrap_str_format(value) is None:
            return None
        text = value.__self__
        escape = {"escape": text.escape} if isinstance(text, Markup) else {}
        formatter = (_EscapeFormatter if escape else _Formatter)(self, **escape)

        def formatted(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                args, kwargs = (), *args
            return str(type(text)(formatter.vformat(text, args, kwargs)))

        return formatted

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator that can make something large of something small, charged for its result."""
        is_number = [isinstance(side, int) for side in (left, right)]
        if operator == "%" and isinstance(left, str | bytes):
            spend_on_percent(left, right)
        elif operator == "+" and not any(is_number):
            spend_on_new(left)
            spend_on_new(right)
        elif operator == "*" and is_number in ([True, False], [False, True]):
            value, times = (right, left) if is_number[0] else (left, right)
            spend_on(value, as_text=True, times=max(times, 0))
        elif operator != "%" and all(is_number):
            first, second = left.bit_length(), right.bit_length()
            bits = first * abs(right) if operator == "**" else first + second
            if bits > INTEGER_BITS:
                raise LimitError(f"it makes a number of {bits:,} bits")
        return super().call_binop(context, operator, left, right)


class _Formatter(SandboxedFormatter):
    """Formats fields as `str.format` does, charged."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        """Return the value of a field, charged as text."""
        value, first = super().get_field(field_name, args, kwargs)
        return spend_on(value, as_text=True), first

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Return the value as text, charged for its width, which another field may state."""
        spend_on_digits(format_spec)
        return super().format_field(value, format_spec)


class _EscapeFormatter(_Formatter, EscapeFormatter):
    """Formats fields of text with escapes for HTML."""


class _Meter(NodeTransformer):
    """Rewrites a template so that loops, literals, slices, comparisons and `~` are charged."""

    def _charged_body(self, node: Any) -> Any:
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("spend", nodes.Const(1 + text))))
        return node

    visit_For = visit_Macro = visit_CallBlock = _charged_body  # noqa: N815

    def _charged_literal(self, node: Any) -> Any:
        self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"  # the names in `{% for key, value in ... %}`
        return node if is_target else _call("made", node)

    visit_List = visit_Tuple = visit_Dict = _charged_literal  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("concatenate", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        operators = nodes.Const(tuple(operand.op for operand in node.ops))
        return _call("compare", operators, node.expr, *(operand.expr for operand in node.ops))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("made", node) if isinstance(node.arg, nodes.Slice) else node


def _call(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


def _charged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is charged for its result, and for its arguments if it reads their text."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context, which some filters need

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        value, *more = args[skip:]
        if name not in _STRUCTURAL:
            value = list(value) if isinstance(value, Iterator) else value  # else its length is unknown
            spend_on([value, *more, *kwargs.values()], as_text=True)
        if name in _LISTING and isinstance(value, str | bytes):
            spend(ENTRY * len(value))
        if name in _WIDE:
            check_widths(*more, *kwargs.values())
        if name == "format":
            spend_on_percent(str(value), kwargs or more)
        elif name != "join":
            spend_on_growth(name, value, *more, **kwargs)
        result = spend_on_new(function(*args[:skip], value, *more, **kwargs))
        return map(_spend_on_row, result) if name in _ROWS else result

    return filtered


def _spend_on_row(row: list[Any]) -> list[Any]:
    spend(ENTRY * len(row))
    return row


def _charged_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a test that is charged for what it compares."""

    @functools.wraps(function)
    def tested(*args: Any) -> Any:
        spend_on(args[0], as_text=True) if name in _AS_TEXT else spend()
        return function(args[0], comparable(name, *args)) if len(args) == 2 else function(*args)

    return tested


@pass_context  # so that Jinja does not evaluate constants once for all renderings
def _charged_output(context: Context, value: Any) -> Any:
    return spend_on(value, as_text=True)


class _GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}`: the text of the assistant."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block itself, between marks if a mask of it is requested."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        mark = generation_mark()
        return f"{mark}{caller()}{mark}"
