"""The rows of a batch: what is kept of texts, between the tokens that are added around them."""

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
    """How texts are truncated.

    Attributes:
        room: how many tokens fit.
        strategy: the strategy of truncation.
        side: where texts are cut off.
        stride: how many tokens of a row the next one repeats.
        overflows: what is cut off makes further rows.
    """

    room: int
    strategy: bool | str
    side: str
    stride: int
    overflows: bool


@dataclass(frozen=True)
class EncodedRows:
    """The rows that samples make.

    Attributes:
        samples: the encoded texts, or texts and their pairs.
        kept: for each row the number of its sample, and what the row keeps of the sample's texts.
        pieces: the layout of a row.
        names: the tokens by id.
    """

    samples: Sequence[Sample]
    kept: Sequence[tuple[int, tuple[slice, ...]]]
    pieces: Sequence[Piece]
    names: Sequence[str]

    @classmethod
    def of(cls, samples: Sequence[Sample], cut: Cut, pieces: Sequence[Piece], names: Sequence[str]) -> Self:
        """Return the rows that samples make.

        Args:
            samples: the encoded texts, or texts and their pairs.
            cut: how texts are truncated.
            pieces: the layout of a row.
            names: the tokens by id.

        Raises:
            ValueError: a sample does not fit.
        """
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
        """Return a field of an encoding, row by row."""
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


# field: its values for a text's tokens, and for a token that is added around texts
_FIELDS: dict[
    str, tuple[Callable[[Encoding, Piece], list[Any]], Callable[[EncodedRows, Piece, int], Any]]
] = {
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
