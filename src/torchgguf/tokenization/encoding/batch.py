"""Lists of tokens made rectangular: truncated, padded, turned into tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch

SIDES = ("left", "right")
STRATEGIES = ("longest_first", "only_first", "only_second", "do_not_truncate")


def check_side(side: str) -> str:
    """The side itself. ValueError if it is neither "left" nor "right"."""
    if side not in SIDES:
        raise ValueError(f"a side is 'left' or 'right', not {side!r}")
    return side


def check_truncation(strategy: bool | str, side: str) -> None:
    """ValueError if there is no such strategy, or no such side."""
    if strategy not in (True, False, *STRATEGIES):
        raise ValueError(f"truncation={strategy!r} is neither a bool nor one of {', '.join(STRATEGIES)}")
    check_side(side)


def truncated(lengths: Sequence[int], room: int, strategy: bool | str) -> list[int]:
    """How much is kept of a text, or of a text and its pair, of these lengths so that `room` tokens remain.

    `strategy`: True or "longest_first" shortens the longer of the two until both fit; "only_first" and
    "only_second" shorten that one; False or "do_not_truncate" neither. ValueError if that is not enough.
    """
    excess = sum(lengths) - room
    if excess <= 0 or strategy in (False, "do_not_truncate"):
        return list(lengths)
    if strategy == "only_second" and len(lengths) == 1:
        raise ValueError("truncation='only_second' needs a pair of texts")
    kept = list(lengths)
    if strategy in ("only_first", "only_second"):
        place = int(strategy == "only_second")
        kept[place] -= excess
        fits = kept[place] > 0
    else:
        if len(kept) == 1:
            kept = [room]
        else:
            shorter = min(min(lengths), room // 2)
            kept = [shorter, room - shorter] if lengths[0] <= lengths[1] else [room - shorter, shorter]
        fits = room >= 0
    if not fits:
        raise ValueError(f"truncation={strategy!r} cannot bring {list(lengths)} tokens to {room}")
    return kept


def kept_parts(
    lengths: Sequence[int], sizes: Sequence[int], side: str, stride: int, overflows: bool
) -> list[tuple[slice, ...]]:
    """What is kept of a text, or of a text and its pair, in one row; of what overflows in more.

    `side`: where they are cut off. `stride`: what each part has of the one before. Rows come in the order of
    the tokenizers library: what is kept of both, each other part of the text with each part of the pair, then
    what is kept of the text with the others. ValueError if the stride is as long as what is kept.
    """
    for length, size in zip(lengths, sizes, strict=True):
        if size < length and (size or overflows) and not 0 <= stride < size:
            raise ValueError(f"stride={stride} is not less than the {size} tokens that are kept of a text")
    parts = [_windows(*text, side, stride) for text in zip(lengths, sizes, strict=True)]
    if not overflows:
        return [tuple(map(next, parts))]
    first, *others = map(list, parts)
    if not others:
        return [(part,) for part in first]
    (second,) = others
    return [(first[0], second[0]), *product(first[1:], second), *product(first[:1], second[1:])]


def _windows(length: int, size: int, side: str, stride: int) -> Iterator[slice]:
    """A text in parts of some size, each of which has `stride` tokens of the one before."""
    for start in range(0, max(length - stride, 1), max(size - stride, 1)):
        end = min(start + size, length)
        yield slice(start, end) if side == "right" else slice(length - end, length - start)


def filled(
    batch: Mapping[str, list[Any]], fills: Mapping[str, Any], lengths: Sequence[int], length: int, side: str
) -> dict[str, list[Any]]:
    """Every row of these lengths made as long as `length` with the field's fill, or 0, at the given side.

    What is no row of tokens is left as it is, such as a label for all of a row.
    """

    def longer(row: Any, old: int, fill: Any) -> Any:
        if not isinstance(row, list) or len(row) != old:
            return row
        padding = [fill] * (length - old)
        return padding + row if side == "left" else row + padding

    return {
        name: [longer(row, old, fills.get(name, 0)) for row, old in zip(rows, lengths, strict=True)]
        for name, rows in batch.items()
    }


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
        length = max_length
    else:
        raise ValueError(f"padding={padding!r} is neither a bool nor 'longest', 'max_length' or 'do_not_pad'")
    return -(-length // multiple_of) * multiple_of if multiple_of else length


def kind_of(rows: Any) -> str | None:
    """What as_arrays would have been asked for to make these rows, or rows like these."""
    for value in (rows, next(iter(rows), None)):
        if isinstance(value, torch.Tensor | np.ndarray):
            return "pt" if isinstance(value, torch.Tensor) else "np"
    return None


def as_lists(values: Any) -> list[Any]:
    """The rows of a field, which may be tensors or arrays, as lists."""
    if isinstance(values, torch.Tensor | np.ndarray):
        return list(values.tolist())
    return [
        row.tolist()
        if isinstance(row, torch.Tensor | np.ndarray)
        else list(row)
        if isinstance(row, tuple)
        else row
        for row in values
    ]


def as_arrays(batch: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """The fields as they are (None), as torch tensors ("pt") or NumPy arrays ("np"); of int64 if empty."""
    if kind is None:
        return dict(batch)
    if kind not in ("pt", "np"):
        raise ValueError(f"return_tensors={kind!r}: 'pt' and 'np' are known")
    arrays = {}
    for name, rows in batch.items():
        if len({len(row) for row in rows if isinstance(row, list)}) > 1:
            raise ValueError(
                f"{name} has rows of different lengths, which make no tensor: pass padding=True, and with "
                "padding='max_length' truncation=True"
            )
        try:
            arrays[name] = _array(rows, kind)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} makes no tensor: {error}") from None
    return arrays


def _array(rows: Any, kind: str) -> Any:
    if kind == "np":
        array = np.asarray(rows)
        return array if array.size else array.astype(np.int64)
    tensor = torch.as_tensor(rows)
    return tensor if tensor.numel() else tensor.long()
