"""The rows of a batch: what is kept of texts, between the tokens that are put around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tokenizers import Encoding

from torchgguf.tokenization.encoding.batch import check_truncation, kept_parts, truncated
from torchgguf.tokenization.kinds.wrapping import Piece

Sample = tuple[Encoding, ...]  # a text, or a text and its pair


@dataclass(frozen=True)
class Cut:
    """How texts are made to fit: into `room` tokens, by a strategy of truncation, cut off at `side`.

    `overflows`: what is cut off makes more rows, each with the last `stride` tokens of the one before.
    """

    room: int
    strategy: bool | str
    side: str
    stride: int
    overflows: bool


@dataclass(frozen=True)
class Rows:
    """`kept`: for each row the number of its sample, and what the row has of the sample's texts.

    `names`: the tokens by id.
    """

    samples: Sequence[Sample]
    kept: Sequence[tuple[int, tuple[slice, ...]]]
    pieces: Sequence[Piece]
    names: Sequence[str]

    @classmethod
    def of(cls, samples: Sequence[Sample], cut: Cut, pieces: Sequence[Piece], names: Sequence[str]) -> Self:
        """The rows that samples make. ValueError if one cannot be made to fit."""
        check_truncation(cut.strategy, cut.side)
        kept: list[tuple[int, tuple[slice, ...]]] = []
        for i, texts in enumerate(samples):
            lengths = [len(text) for text in texts]
            if sum(lengths) <= cut.room:
                kept.append((i, (slice(None),) * len(texts)))
            else:
                sizes = truncated(lengths, cut.room, cut.strategy)
                parts = kept_parts(lengths, sizes, cut.side, cut.stride, cut.overflows)
                kept += [(i, row) for row in parts]
        return cls(samples, kept, pieces, names)

    def field(self, name: str) -> list[list[Any]]:
        """A field of an encoding, row by row."""
        return [self._row(name, self.samples[i], kept) for i, kept in self.kept]

    def _row(self, name: str, texts: Sample, kept: tuple[slice, ...]) -> list[Any]:
        of_text, of_added = _FIELDS[name]
        row: list[Any] = []
        for piece in self.pieces:
            if piece.text is None:
                row += [of_added(self, piece, i) for i in piece.ids]
            else:
                row += of_text(texts[piece.text], piece)[kept[piece.text]]
        return row


# Each field: what it says of a text's tokens, and of a token that is put around texts.
_FIELDS: dict[str, tuple[Callable[[Encoding, Piece], list[Any]], Callable[[Rows, Piece, int], Any]]] = {
    "input_ids": (lambda text, piece: text.ids, lambda rows, piece, i: i),
    "token_type_ids": (
        lambda text, piece: [piece.segment] * len(text),
        lambda rows, piece, i: piece.segment,
    ),
    "attention_mask": (lambda text, piece: [1] * len(text), lambda rows, piece, i: 1),
    "special_tokens_mask": (lambda text, piece: [0] * len(text), lambda rows, piece, i: 1),
    "offset_mapping": (lambda text, piece: text.offsets, lambda rows, piece, i: (0, 0)),
    "tokens": (lambda text, piece: text.tokens, lambda rows, piece, i: rows.names[i]),
    "words": (lambda text, piece: text.word_ids, lambda rows, piece, i: None),
    "sequence_ids": (lambda text, piece: [piece.text] * len(text), lambda rows, piece, i: None),
}
