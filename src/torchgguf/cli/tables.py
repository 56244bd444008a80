"""Format tables and values for the terminal."""

import math
import re
import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from torchgguf.cli.terminal import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from torchgguf.container import Metadata

TableRows = Sequence[tuple[str, ...]]

_SHOWN_CHARACTERS, _SHOWN_ITEMS = 72, 6
_WIDTH_WITHOUT_TERMINAL = 160
_LEAST_WIDTH = 40
# Columns that a narrow terminal does not show; the first of these is dropped first.
_OPTIONAL = (
    "worst",
    "weighted error",
    "was",
    "tensors",
    "outliers",
    "entropy",
    "least",
    "deviation",
    "bytes",
)
_GAP = 2  # columns between two columns of a table
_LEAST_WORDS = 26  # columns for words, which may be in several lines
_WORDS = frozenset({"key", "name", "type", "value", "shape", "file", "was"})  # the other columns are numbers


def table(title: str, columns: list[str], rows: TableRows) -> "Table":
    """Make a table of texts, with control characters escaped.

    Args:
        title: stands above the table.
        columns: names of columns; unknown names are columns of numbers.
        rows: the cells of each row.
    """
    from rich.table import Table
    from rich.text import Text

    columns, rows = _fitting(columns, rows)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        if column in _WORDS:
            table.add_column(column, overflow="fold")
        else:  # a number in two lines looks like two numbers
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def layers_as_one(name: str) -> str:
    """Return the name of a tensor with `*` for each number: the same one for all layers."""
    return re.sub(r"\b\d+\b", "*", name)


def _fitting(columns: list[str], rows: TableRows) -> tuple[list[str], TableRows]:
    """Drop columns that do not fit beside the others."""
    widths = {
        column: max(map(len, (column, *(row[index] for row in rows)))) for index, column in enumerate(columns)
    }
    for column in _WORDS & widths.keys():
        widths[column] = min(widths[column], _LEAST_WORDS)
    kept = list(columns)
    for column in _OPTIONAL:
        if sum(widths[each] + _GAP for each in kept) > _width() and column in kept:
            kept.remove(column)
    places = [columns.index(column) for column in kept]
    return kept, [tuple(row[place] for place in places) for row in rows]


def _width() -> int:
    """Return the columns for results: those of the terminal, or enough for any line without one."""
    if not sys.stdout.isatty():
        return _WIDTH_WITHOUT_TERMINAL
    return max(get_terminal_size().columns, _LEAST_WIDTH)


def metadata_table(metadata: "Metadata") -> "Table":
    """Make a table of keys, types and values, each in about one line."""
    from torchgguf.container import type_name

    rows = [(key, type_name(metadata.types[key]), preview(value)) for key, value in metadata.items()]
    return table("metadata", ["key", "type", "value"], rows)


def show(*parts: "Table | str") -> None:
    """Print tables and lines, with an empty line between tables."""
    from rich.console import Console

    console = Console(width=_width(), highlight=False)
    with console.capture() as shown:  # written below, because Console handles broken pipes in another way
        for index, part in enumerate(parts):
            if index and not isinstance(part, str):
                console.print()
            console.print(part, markup=False)
    sys.stdout.write(shown.get())


def preview(value: Any) -> str:
    """Format a value in about one line; for a long array its beginning and length."""
    if isinstance(value, list):
        items = ", ".join(preview(item) for item in value[:_SHOWN_ITEMS])
        return f"[{items}]" if len(value) <= _SHOWN_ITEMS else f"[{items}, … {len(value):,} in total]"
    text = f"{value:.7g}" if isinstance(value, float) else str(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def finite(value: Any) -> Any:
    """Convert NaN and infinity to strings, because JSON does not support them."""
    if isinstance(value, list):
        return [finite(item) for item in value] if value and isinstance(value[0], float | list) else value
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
