"""Lists of tokens made rectangular: truncated, padded, turned into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

SIDES = ("left", "right")
STRATEGIES = ("longest_first", "only_first", "only_second", "do_not_truncate")


class BatchEncoding(dict[str, Any]):
    """What a tokenizer returns: a dict whose values are attributes too, ready for `model(**encoding)`.

    Values are lists, or arrays of shape (batch, length). `words`: what `word_ids` tells. It is no entry, as
    no model takes it, and None unless the texts were lists of words or offsets were asked for.
    """

    words: list[list[int | None]] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the encoding has no {name!r}, only {', '.join(self)}") from None

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a text the number of its word there, None for what was added."""
        if self.words is None:
            raise ValueError("words are known with is_split_into_words=True or return_offsets_mapping=True")
        return self.words[batch_index]

    def only_row(self) -> BatchEncoding:
        """The encoding of the one text that this batch has, without the dimension of the batch."""
        return BatchEncoding({name: row for name, (row,) in self.items()})

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> BatchEncoding:
        """Move the tensors to a device; returns the encoding itself."""
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.to(device, non_blocking=non_blocking)
        return self


def check_side(side: str) -> str:
    """The side itself. ValueError if it is neither "left" nor "right"."""
    if side not in SIDES:
        raise ValueError(f"a side is 'left' or 'right', not {side!r}")
    return side


def truncated(lengths: Sequence[int], room: int, strategy: bool | str, side: str) -> list[slice]:
    """What is kept of a text, or of a text and its pair, of these lengths so that `room` tokens remain.

    `strategy`: True or "longest_first" shortens the longer of the two until both fit; "only_first" and
    "only_second" shorten that one; False or "do_not_truncate" neither. ValueError if that is not enough.
    """
    if strategy not in (True, False, *STRATEGIES):
        raise ValueError(f"truncation={strategy!r} is neither a bool nor one of {', '.join(STRATEGIES)}")
    if strategy == "only_second" and len(lengths) == 1:
        raise ValueError("truncation='only_second' needs a pair of texts")
    check_side(side)
    kept = list(lengths)
    excess = sum(lengths) - room
    if excess > 0 and strategy not in (False, "do_not_truncate"):
        if strategy in ("only_first", "only_second"):
            kept[strategy == "only_second"] -= excess
        elif len(kept) == 1:
            kept = [room]
        else:
            shorter = min(min(lengths), room // 2)
            kept = [shorter, room - shorter] if lengths[0] <= lengths[1] else [room - shorter, shorter]
        if min(kept) < 0:
            raise ValueError(f"truncation={strategy!r} cannot bring {list(lengths)} tokens to {room}")
    pairs = zip(kept, lengths, strict=True)
    return [slice(0, n) if side == "right" else slice(length - n, length) for n, length in pairs]


def filled(
    batch: Mapping[str, list[list[Any]]], fills: Mapping[str, Any], length: int, side: str
) -> dict[str, list[list[Any]]]:
    """Every row of every field lengthened to `length` with the field's fill, or 0, at the given side."""

    def longer(row: list[Any], fill: Any) -> list[Any]:
        padding = [fill] * (length - len(row))
        return padding + row if side == "left" else row + padding

    return {name: [longer(row, fills.get(name, 0)) for row in rows] for name, rows in batch.items()}


def padded_length(
    lengths: Sequence[int], padding: bool | str, max_length: int | None, multiple_of: int | None
) -> int | None:
    """The length to pad to: True or "longest" the longest row's, "max_length" that. None: not at all."""
    if padding in (False, "do_not_pad"):
        return None
    if padding in (True, "longest"):
        length = max(lengths, default=0)
    elif padding == "max_length":
        if max_length is None:
            raise ValueError("padding='max_length' needs max_length=")
        length = max(max_length, max(lengths, default=0))
    else:
        raise ValueError(f"padding={padding!r} is neither a bool nor 'longest', 'max_length' or 'do_not_pad'")
    return -(-length // multiple_of) * multiple_of if multiple_of else length


def as_arrays(batch: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """The fields as they are (None), as torch tensors ("pt") or NumPy arrays ("np") of int64."""
    if kind is None:
        return dict(batch)
    if kind not in ("pt", "np"):
        raise ValueError(f"return_tensors={kind!r}: 'pt' and 'np' are known")
    for name, rows in batch.items():
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"{name} has rows of different lengths, which make no tensor: pass padding=True")
    if kind == "np":
        return {name: np.array(rows, dtype=np.int64) for name, rows in batch.items()}
    return {name: torch.tensor(rows, dtype=torch.int64) for name, rows in batch.items()}
