"""Control tokens in text from strangers, kept apart from those that a chat template writes.

They are marked before a template reads them, and what is marked in its text is encoded as plain text. A
template may take a text apart: then a mark stands alone, and still keeps what is beside it from joining.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

_START, _END = "\U000f0000", "\U000f0001"  # for private use, so not in texts
_MARKS = re.compile(f"[{_START}{_END}]")

Encode = Callable[[str], list[int]]


class ControlTokens:
    """The tokens that only the template may write."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """List the tokens."""
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        pattern = "|".join(longest_first) or "(?!)"
        self._tokens = re.compile(pattern)
        self._marked = re.compile(f"{_START}({pattern}){_END}|{_MARKS.pattern}")

    def mark(self, value: Any) -> Any:
        """Return the value with marks around these tokens in all of its strings, except keys of dicts."""
        if isinstance(value, str):
            return self._tokens.sub(rf"{_START}\g<0>{_END}", _MARKS.sub("", value))
        if isinstance(value, dict):
            return {key: self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self.mark, value))
        return value

    def encode(self, text: str, encode: Encode, spell: Encode) -> list[int]:
        """Return the ids of a template's text.

        Args:
            text: the text with marks.
            encode: encodes what is not marked.
            spell: encodes what is marked, as plain text.
        """
        newline = encode("\n")
        first, *others = self._marked.split(text)
        ids = encode(first)
        for i, part in enumerate(others):
            if part:
                one = encode if i % 2 else spell
                # After a line break, so that SentencePiece adds no space as at the start of a text.
                found = one(f"\n{part}")
                starts = found[: len(newline)] == newline
                ids += found[len(newline) :] if starts else one(part)
        return ids
