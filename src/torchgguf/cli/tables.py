"""Format tables and values for the terminal."""

import math
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
_LEAST_WIDTH = 80
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

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        if column in _WORDS:
            table.add_column(column, overflow="fold")
        else:  # a number in two lines looks like two numbers
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def metadata_table(metadata: "Metadata") -> "Table":
    """Make a table of keys, types and values, each in about one line."""
    from torchgguf.container import type_name

    rows = [(key, type_name(metadata.types[key]), preview(value)) for key, value in metadata.items()]
    return table("metadata", ["key", "type", "value"], rows)


def show(*parts: "Table | str") -> None:
    """Print tables and lines, with an empty line between tables."""
    from rich.console import Console

    # A narrower terminal wraps lines; Console would cut off what does not fit.
    width = max(get_terminal_size().columns, _LEAST_WIDTH) if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, highlight=False)
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
