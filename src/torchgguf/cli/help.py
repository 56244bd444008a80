"""The help of commands: plain text that is readable in narrow terminals, too."""

import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from shutil import get_terminal_size
from typing import Any

from typer.core import TyperCommand, TyperGroup

_wrap = partial(textwrap.wrap, break_on_hyphens=False)

_MOST_COLUMNS = 100
_TERMS = 26  # columns of names and options, beside which their explanation begins
_INDENT = 6  # of an explanation below its term


class Command(TyperCommand):
    """A command with this help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(_help_text(self, ctx))


class CommandGroup(TyperGroup):
    """Commands with this help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(_help_text(self, ctx))


def _help_text(command: Any, context: Any) -> str:
    width = min(get_terminal_size().columns, _MOST_COLUMNS) - 1
    shown = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    names = [name if param.required else f"[{name}]" for param in arguments for name in [_name(param)]]
    commands = _commands(command, context)
    words = [context.command_path, "[OPTIONS]", *names, *(["COMMAND ..."] if commands else [])]
    parts = [
        _wrap(f"Usage: {' '.join(words)}", width, subsequent_indent=" " * _INDENT),
        *_paragraphs(command.help or "", width),
        _section("Arguments", [(_name(param), _explanation(param)) for param in arguments], width),
        *_option_sections([param for param in shown if param not in arguments], width),
        _section("Commands", commands, width),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _option_sections(options: Iterable[Any], width: int) -> Iterator[list[str]]:
    """Return a section for each group of options, in the order of the first option of each."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in options:
        group = getattr(param, "rich_help_panel", None) or "Options"
        groups.setdefault(group, []).append((_spelling(param), _explanation(param)))
    return (_section(title, rows, width) for title, rows in groups.items())


def _commands(command: Any, context: Any) -> list[tuple[str, str]]:
    if not hasattr(command, "list_commands"):
        return []
    known = ((name, command.get_command(context, name)) for name in command.list_commands(context))
    return [(name, (each.help or "").partition("\n\n")[0]) for name, each in known]


def _paragraphs(text: str, width: int) -> Iterator[list[str]]:
    """Wrap paragraphs and lists, which begin with "- "."""
    for paragraph in text.replace("`", "").strip().split("\n\n"):
        if not paragraph.startswith("- "):
            yield _wrap(" ".join(paragraph.split()), width)
        else:
            items = paragraph.removeprefix("- ").split("\n- ")
            yield [line for item in items for line in _wrap(f"- {item}", width, subsequent_indent="  ")]


def _section(title: str, rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Return a title and its terms, each beside its explanation, or above it if the term is long."""
    lines = [f"{title}:"]
    column = _INDENT if width < 3 * _TERMS else _TERMS
    for term, explanation in rows:
        told = _wrap(explanation.replace("`", ""), width - column) or [""]
        if len(term) + 4 <= column:
            lines.append(f"  {term:{column - 2}}{told.pop(0)}".rstrip())
        else:
            lines.append(f"  {term}")
        lines += [" " * column + line for line in told]
    return lines if len(lines) > 1 else []


def _name(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _spelling(param: Any) -> str:
    """Return the names of an option, short ones first, and what stands for its value."""
    names = sorted(param.opts, key=len)
    if param.is_flag:
        return " / ".join([", ".join(names), *param.secondary_opts])
    return f"{', '.join(names)} {param.metavar}"


def _explanation(param: Any) -> str:
    notes = []
    range_of = getattr(param, "type", param)  # depends on the version of typer
    low, high = (getattr(range_of, end, None) for end in ("min", "max"))
    if low is not None:
        notes.append(f"at least {low}" if high is None else f"{low} to {high}")
    default = getattr(param, "show_default", None)
    if default is True:
        default = param.default
        if param.param_type_name == "option" and param.is_flag:
            default = min(param.opts, key=len) if param.secondary_opts and default else None
    if default not in (None, False, "", [], ()) and not callable(default):
        notes.append(f"default: {getattr(default, 'value', default)}")
    return " ".join([(param.help or "").strip(), *([f"({'; '.join(notes)})"] if notes else [])])
