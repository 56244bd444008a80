"""What a tokenizer returns: ids and masks, and where each token lies in its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch

from torchgguf.tokenization.encoding.batch import as_arrays

# What tells where tokens come from: fields of `rows`.
ORIGINS = ("tokens", "words", "offset_mapping", "sequence_ids")


class Span(NamedTuple):
    """From, and up to but without: tokens of a row, or characters of a text."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """What a tokenizer returns: a dict whose values are attributes too, ready for `model(**encoding)`.

    Values are lists, or arrays of shape (batch, length). The methods beside those of a dict say which token
    comes from where, for the row that `batch_index` counts: of a single row it may be left out. They know it
    only of what a tokenizer has just encoded, not of a copy or of what was padded afterwards. Words are those
    of a text that is a list of words, else the parts that the tokenizer splits a text into.
    """

    # The fields of ORIGINS, each by rows; made when they are first asked for.
    _origins: Callable[[], Mapping[str, list[list[Any]]]] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the encoding has no {name!r}, only {', '.join(self)}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def only_row(self) -> BatchEncoding:
        """The encoding of the one text that this batch has, without the dimension of the batch."""
        row = BatchEncoding({k: v[0] if isinstance(v[0], list) else v for k, v in self.items()})
        row._origins = self._origins
        return row

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Self:
        """Move the tensors to a device; returns the encoding itself."""
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.to(device, non_blocking=non_blocking)
        return self

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> Self:
        """Make the lists torch tensors ("pt") or NumPy arrays ("np"), each perhaps as a batch of one."""
        self.update(as_arrays({k: [v] if prepend_batch_axis else v for k, v in self.items()}, tensor_type))
        return self

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row, as they are written in the vocabulary."""
        return self._row("tokens", batch_index)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its word in its text, None for what was added."""
        return self._row("words", batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row 0 if it is of the text, 1 if it is of the pair, None for what was added."""
        return self._row("sequence_ids", batch_index)

    def token_to_sequence(self, batch_or_token: int, token: int | None = None) -> int | None:
        """Whether a token is of the text (0), of the pair (1), or was added (None)."""
        row, token = _place(batch_or_token, token)
        return self.sequence_ids(row)[token]

    def token_to_word(self, batch_or_token: int, token: int | None = None) -> int | None:
        """The number of a token's word in its text, None for what was added."""
        row, token = _place(batch_or_token, token)
        return self.word_ids(row)[token]

    def token_to_chars(self, batch_or_token: int, token: int | None = None) -> Span | None:
        """The characters of its text that a token stands for, None for what was added."""
        row, token = _place(batch_or_token, token)
        if self.sequence_ids(row)[token] is None:
            return None
        return Span(*self._row("offset_mapping", row)[token])

    def char_to_token(
        self, batch_or_char: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that a character of the text (0) or of the pair (1) is in, None if it is in none."""
        row, char = _place(batch_or_char, char)
        places = zip(self._row("offset_mapping", row), self.sequence_ids(row), strict=True)
        inside = (i for i, ((a, b), of) in enumerate(places) if of == sequence_index and a <= char < b)
        return next(inside, None)

    def word_to_tokens(
        self, batch_or_word: int, word: int | None = None, sequence_index: int = 0
    ) -> Span | None:
        """The tokens of a word of the text (0) or of the pair (1), None if it has none."""
        row, word = _place(batch_or_word, word)
        places = zip(self.word_ids(row), self.sequence_ids(row), strict=True)
        tokens = [i for i, place in enumerate(places) if place == (word, sequence_index)]
        return Span(tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(
        self, batch_or_word: int, word: int | None = None, sequence_index: int = 0
    ) -> Span | None:
        """The characters of a word of the text (0) or of the pair (1), None if no token is of it."""
        row, word = _place(batch_or_word, word)
        if (tokens := self.word_to_tokens(row, word, sequence_index)) is None:
            return None
        offsets = self._row("offset_mapping", row)
        return Span(offsets[tokens.start][0], offsets[tokens.end - 1][1])

    def char_to_word(
        self, batch_or_char: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that a character of the text (0) or of the pair (1) is in, None if it is in none."""
        row, char = _place(batch_or_char, char)
        token = self.char_to_token(row, char, sequence_index)
        return None if token is None else self.word_ids(row)[token]

    def _row(self, name: str, index: int) -> list[Any]:
        if self._origins is None:
            raise ValueError("where tokens come from is known only of what the tokenizer has just encoded")
        return self._origins()[name][index]


def _place(row_or_index: int, index: int | None) -> tuple[int, int]:
    """The row, which is the first if there is one number only, and the index in it."""
    return (0, row_or_index) if index is None else (row_or_index, index)
