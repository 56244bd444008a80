"""Chat templates are programs from strangers: Jinja in a sandbox, with a bound on what a rendering may use.

Jinja's immutable sandbox keeps a template away from Python's internals and from changing what it is given.
It does not stop one that loops for ever or fills the memory. So each turn of a loop, call and filter looks at
the clock, and whatever makes something new (operators, literals, slices, output, methods, filters) or
compares what may be large is charged, as `budget` says.
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

TEMPLATE_SIZE = 1 << 16  # characters, four times as many as the longest known template has

_Function = Callable[..., Any]

# Filters that pass on what they are given without looking at its text.
# fmt: off
_STRUCTURAL = frozenset({
    "attr", "batch", "count", "d", "default", "first", "items", "last", "length", "list", "map", "random",
    "reject", "rejectattr", "reverse", "select", "selectattr", "slice",
})
# fmt: on
_LISTING = frozenset({"batch", "list", "slice", "sort", "unique"})  # make a list of a string's characters
_WIDE = frozenset({"batch", "center", "indent", "round", "slice", "tojson"})  # take a width or a precision
_ROWS = frozenset({"batch", "slice"})  # make lists one after the other
_WITHOUT = frozenset({"pprint", "striptags", "urlize", "wordwrap"})  # quadratic, and no template needs them
_AS_TEXT = frozenset({"lower", "upper"})  # tests that make a text of anything
_CODECS = frozenset({"ascii", "latin-1", "utf-8", "utf8", "ignore", "replace", "strict"})

_OF_THE_LOOP = ("_loop_vars", "_block_vars")  # what Jinja adds to a call's arguments, and takes away again

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
    """Jinja as transformers sets it up for chat templates, on a budget."""

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
        """Something new, which `call` charges as what comes of any call."""
        return value

    @staticmethod
    def concatenate(*values: Any) -> str:
        """The operator `~`."""
        spend_on(values, as_text=True)
        return "".join(map(str, values))

    @staticmethod
    def compare(operators: tuple[str, ...], *values: Any) -> bool:
        """Comparisons: the operators between the values, all of which must hold."""
        for name, (left, right) in zip(operators, pairwise(values), strict=True):
            if not _COMPARISONS[name](left, comparable(name, left, right)):
                return False
        return True

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call something, which may take time and make something."""
        spend()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes):  # else what looks at an iterator leaves nothing of it
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
        elif isinstance(owner, list | tuple):  # which look for the argument
            spend_on(arguments, as_text=True, times=len(owner))
        elif isinstance(owner, int):
            check_widths(*arguments)
        elif isinstance(owner, LoopContext):  # which compares them with those of the last turn
            spend_on(arguments, as_text=True)
        elif isinstance(__obj, Macro):  # those that it has no names for it gets as a tuple and a dict
            more = [value for name, value in named.items() if name not in __obj.arguments]
            spend_on([*args[len(__obj.arguments) :], *more])
        result = super().call(__context, __obj, *args, **kwargs)
        return spend_on(result, as_text=isinstance(owner, str | bytes) or isinstance(result, str | bytes))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An entry of something, by what may have to be hashed, or written into an error."""
        return super().getitem(obj, spend_on(argument, as_text=True))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` and `str.format_map` in the sandbox, charged for each field."""
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
        """An operator that can make something big of something small."""
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
    """What `str.format` does with each of its fields, charged."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        """The value of a field, of which text is going to be made."""
        value, first = super().get_field(field_name, args, kwargs)
        return spend_on(value, as_text=True), first

    def format_field(self, value: Any, format_spec: str) -> Any:
        """The value as text of a certain width, which other fields may have said."""
        spend_on_digits(format_spec)
        return super().format_field(value, format_spec)


class _EscapeFormatter(_Formatter, EscapeFormatter):
    """The same for text with escapes for HTML."""


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
    """A filter that is charged what it takes in, if it makes text of it, and what it returns."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context, which some filters ask for

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        value, *more = args[skip:]
        if name not in _STRUCTURAL:
            value = list(value) if isinstance(value, Iterator) else value  # else nobody knows how much it is
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
    """A test that is charged for what it compares."""

    @functools.wraps(function)
    def tested(*args: Any) -> Any:
        spend_on(args[0], as_text=True) if name in _AS_TEXT else spend()
        return function(args[0], comparable(name, *args)) if len(args) == 2 else function(*args)

    return tested


@pass_context  # so that Jinja does not do it once for all for what is constant
def _charged_output(context: Context, value: Any) -> Any:
    return spend_on(value, as_text=True)


class _GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """The block itself, between marks if somebody wants to know where it is."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        mark = generation_mark()
        return f"{mark}{caller()}{mark}"
