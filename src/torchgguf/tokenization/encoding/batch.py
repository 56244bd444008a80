"""Lists of tokens made rectangular: truncated, padded, converted to tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch

SIDES = ("left", "right")
STRATEGIES = ("longest_first", "only_first", "only_second", "do_not_truncate")


def check_side(side: str) -> str:
    """Return the side itself. Raise ValueError if it is neither "left" nor "right"."""
    if side not in SIDES:
        raise ValueError(f"a side must be 'left' or 'right', got {side!r}")
    return side


def check_truncation(strategy: bool | str, side: str) -> None:
    """Raise ValueError if the strategy or the side is unknown."""
    if strategy not in (True, False, *STRATEGIES):
        raise ValueError(f"truncation={strategy!r} must be a bool or one of {', '.join(STRATEGIES)}")
    check_side(side)


def truncated(lengths: Sequence[int], room: int, strategy: bool | str) -> list[int]:
    """Return how many tokens truncation keeps of a text, or of a text and its pair.

    Args:
        lengths: their lengths.
        room: how many tokens fit.
        strategy: True or "longest_first" shortens the longer of the two until both fit; "only_first" and
            "only_second" shorten that one; False or "do_not_truncate" keeps both.

    Raises:
        ValueError: they do not fit in this way.
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
        raise ValueError(f"truncation={strategy!r} does not shorten {list(lengths)} tokens to {room}")
    return kept


def kept_parts(
    lengths: Sequence[int], sizes: Sequence[int], side: str, stride: int, overflows: bool
) -> list[tuple[slice, ...]]:
    """Return what a row keeps of a text, or of a text and its pair, and what further rows do.

    Rows are in the order of the tokenizers library: what is kept of both, each other part of the text with
    each part of the pair, then what is kept of the text with the others.

    Args:
        lengths: the lengths of the texts.
        sizes: how much one row keeps of each.
        side: where texts are cut off.
        stride: how many tokens of a part the next part repeats.
        overflows: return further rows with what is cut off.

    Raises:
        ValueError: the stride is not less than what is kept.
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
    """Split a text into parts of some size, each of which repeats `stride` tokens of the one before."""
    for start in range(0, max(length - stride, 1), max(size - stride, 1)):
        end = min(start + size, length)
        yield slice(start, end) if side == "right" else slice(length - end, length - start)


def filled(
    batch: Mapping[str, list[Any]], fills: Mapping[str, Any], lengths: Sequence[int], length: int, side: str
) -> dict[str, list[Any]]:
    """Return a batch whose rows are padded.

    What is not a row of tokens stays as it is, such as one label for a whole row.

    Args:
        batch: the fields.
        fills: the padding by field; 0 for others.
        lengths: the lengths of the rows.
        length: the padded length.
        side: where to pad.
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
    """Return the length to pad to, None for no padding.

    Args:
        lengths: the lengths of the rows.
        padding: True or "longest", or "max_length".
        max_length: the length for "max_length".
        multiple_of: round the length up to a multiple of this.

    Raises:
        ValueError: `padding` is unknown, or has no length.
    """
    if padding in (False, "do_not_pad"):
        return None
    if padding in (True, "longest"):
        length = max(lengths, default=0)
    elif padding == "max_length":
        if max_length is None:
            raise ValueError("padding='max_length' needs max_length=")
        length = max_length
    else:
        raise ValueError(f"padding={padding!r} must be a bool, 'longest', 'max_length' or 'do_not_pad'")
    return -(-length // multiple_of) * multiple_of if multiple_of else length


def kind_of(rows: Any) -> str | None:
    """Return "pt" or "np" if the rows, or the first of them, are tensors or arrays, else None."""
    for value in (rows, next(iter(rows), None)):
        if isinstance(value, torch.Tensor | np.ndarray):
            return "pt" if isinstance(value, torch.Tensor) else "np"
    return None


def as_lists(values: Any) -> list[Any]:
    """Return the rows of a field, which may be tensors or arrays, as lists."""
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
    """Return the fields as tensors; empty ones are of int64.

    Args:
        batch: the fields.
        kind: "pt" for torch tensors, "np" for NumPy arrays, None for what they are.

    Raises:
        ValueError: the kind is unknown, or a field is not rectangular.
    """
    if kind is None:
        return dict(batch)
    if kind not in ("pt", "np"):
        raise ValueError(f"return_tensors={kind!r} must be 'pt' or 'np'")
    arrays = {}
    for name, rows in batch.items():
        if len({len(row) for row in rows if isinstance(row, list)}) > 1:
            raise ValueError(
                f"{name} has rows of different lengths, so it is not a tensor: pass padding=True, and with "
                "padding='max_length' truncation=True"
            )
        try:
            arrays[name] = _array(rows, kind)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is invalid as a tensor: {error}") from None
    return arrays


def _array(rows: Any, kind: str) -> Any:
    if kind == "np":
        array = np.asarray(rows)
        return array if array.size else array.astype(np.int64)
    tensor = torch.as_tensor(rows)
    return tensor if tensor.numel() else tensor.long()
