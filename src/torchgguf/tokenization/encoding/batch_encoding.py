"""What a tokenizer returns: ids and masks, and where each token lies in its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch

from torchgguf.tokenization.encoding.batch import as_arrays

# The fields of encoded rows that state where tokens come from.
ORIGINS = ("tokens", "words", "offset_mapping", "sequence_ids")
# Returns these fields, each by rows.
Origins = Callable[[], Mapping[str, list[list[Any]]]]


class CharSpan(NamedTuple):
    """Characters of a text: the first, and the one after the last."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens of a row: the first, and the one after the last."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """What a tokenizer returns: a dict whose values are attributes too, ready for `model(**encoding)`.

    Values are lists, or arrays of shape (batch, length). Further methods state where tokens come from, for
    the row `batch_index`, which may be omitted if there is one row. They work for what a tokenizer has just
    encoded; a copy, or what was padded afterwards, does not know where its tokens come from. Words are those
    of a text that is a list of words, else the parts into which the tokenizer splits a text.
    """

    _origins: Origins | None = None

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
        **fields: Any,
    ) -> None:
        """Hold fields.

        Args:
            data: the fields.
            encoding: must be None; the tokenizer states where its tokens come from.
            tensor_type: convert the fields, as `convert_to_tensors` does.
            prepend_batch_axis: make each field a batch of one.
            n_sequences: accepted for compatibility with transformers.
            fields: more fields.

        Raises:
            ValueError: `encoding` is not None, or the fields are invalid as tensors.
        """
        if encoding is not None:
            raise ValueError("encoding= is unsupported: a tokenizer's encodings know their tokens")
        super().__init__(data or {}, **fields)
        if tensor_type is not None or prepend_batch_axis:
            self.convert_to_tensors(tensor_type, prepend_batch_axis)

    @property
    def data(self) -> dict[str, Any]:
        """The fields."""
        return self

    @property
    def is_fast(self) -> bool:
        """Whether the encoding knows where its tokens come from."""
        return self._origins is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for texts, 2 for texts and their pairs, None where it is not known."""
        if self._origins is None:
            return None
        rows = self._origins()["sequence_ids"]
        return 1 + max((i for row in rows for i in row if i is not None), default=0)

    @classmethod
    def with_origins(cls, fields: Mapping[str, Any], origins: Origins | None) -> Self:
        """Return an encoding that knows where its tokens come from.

        Args:
            fields: the fields.
            origins: returns the fields `ORIGINS` by rows; called when one is needed.
        """
        encoding = cls(fields)
        encoding._origins = origins
        return encoding

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the encoding has no field {name!r}, only {', '.join(self)}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def only_row(self) -> BatchEncoding:
        """Return the encoding of the only text of this batch, without the dimension of the batch."""
        fields = {k: v[0] if isinstance(v[0], list) else v for k, v in self.items()}
        return BatchEncoding.with_origins(fields, self._origins)

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Self:
        """Move the tensors to a device, in place; return the encoding itself.

        Args:
            device: where to.
            non_blocking: copy asynchronously, as in `torch.Tensor.to`.
        """
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.to(device, non_blocking=non_blocking)
        return self

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> Self:
        """Convert lists to tensors, in place; return the encoding itself.

        Args:
            tensor_type: "pt" for torch tensors, "np" for NumPy arrays, None for lists as they are.
            prepend_batch_axis: make each field a batch of one.

        Raises:
            ValueError: the type is unknown, or a field has rows of different lengths.
        """
        self.update(as_arrays({k: [v] if prepend_batch_axis else v for k, v in self.items()}, tensor_type))
        return self

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of a row as the vocabulary spells them."""
        return self._row("tokens", batch_index)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return for each token of a row the number of its word in its text, None if it was added."""
        return self._row("words", batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return for each token of a row 0 if it is of the text, 1 if of the pair, None if it was added."""
        return self._row("sequence_ids", batch_index)

    def token_to_sequence(self, batch_or_token: int, token: int | None = None) -> int | None:
        """Return 0 if a token is of the text, 1 if it is of the pair, None if it was added."""
        row, token = _place(batch_or_token, token)
        return self.sequence_ids(row)[token]

    def token_to_word(self, batch_or_token: int, token: int | None = None) -> int | None:
        """Return the number of a token's word in its text, None if the token was added."""
        row, token = _place(batch_or_token, token)
        return self.word_ids(row)[token]

    def token_to_chars(self, batch_or_token: int, token: int | None = None) -> CharSpan | None:
        """Return the characters of its text that a token stands for, None if it was added."""
        row, token = _place(batch_or_token, token)
        if self.sequence_ids(row)[token] is None:
            return None
        return CharSpan(*self._row("offset_mapping", row)[token])

    def char_to_token(
        self, batch_or_char: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the token that holds a character of the text (0) or of the pair (1), None if none does."""
        row, char = _place(batch_or_char, char)
        places = zip(self._row("offset_mapping", row), self.sequence_ids(row), strict=True)
        inside = (i for i, ((a, b), of) in enumerate(places) if of == sequence_index and a <= char < b)
        return next(inside, None)

    def word_to_tokens(
        self, batch_or_word: int, word: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return the tokens of a word of the text (0) or of the pair (1), None if there are none."""
        row, word = _place(batch_or_word, word)
        places = zip(self.word_ids(row), self.sequence_ids(row), strict=True)
        tokens = [i for i, place in enumerate(places) if place == (word, sequence_index)]
        return TokenSpan(tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(
        self, batch_or_word: int, word: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Return the characters of a word of the text (0) or of the pair (1), None if it has no tokens."""
        row, word = _place(batch_or_word, word)
        if (tokens := self.word_to_tokens(row, word, sequence_index)) is None:
            return None
        offsets = self._row("offset_mapping", row)
        return CharSpan(offsets[tokens.start][0], offsets[tokens.end - 1][1])

    def char_to_word(
        self, batch_or_char: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the word that holds a character of the text (0) or of the pair (1), None if none does."""
        row, char = _place(batch_or_char, char)
        token = self.char_to_token(row, char, sequence_index)
        return None if token is None else self.word_ids(row)[token]

    def _row(self, name: str, index: int) -> list[Any]:
        if self._origins is None:
            raise ValueError("where tokens come from is known only of what the tokenizer has just encoded")
        return self._origins()[name][index]


def _place(row_or_index: int, index: int | None) -> tuple[int, int]:
    """Return the row and the index in it; a single number is an index in the first row."""
    return (0, row_or_index) if index is None else (row_or_index, index)
