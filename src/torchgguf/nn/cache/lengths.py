"""Ranges of text lengths for which stored keys are valid.

A rotary embedding may change its frequencies with the length of the text (LongRoPE). Keys that were rotated
by the frequencies of short texts are then invalid in a long one, and the other way round.
"""

import torch
from torch import Tensor

# A compiled graph does not ask what is in a tensor: there a bound is a tensor (), and read when it is needed.
Bound = int | Tensor | None
# The lowest and the highest length, both included; None: there is no such bound.
Lengths = tuple[Bound, Bound]

ALL_LENGTHS = (0, torch.iinfo(torch.long).max)


def common_lengths(one: Lengths | None, other: Lengths | None) -> Lengths | None:
    """Return the range of lengths that are in both ranges; None stands for all lengths."""
    if one is None or other is None:
        return one or other
    return _tighter(one[0], other[0], highest=False), _tighter(one[1], other[1], highest=True)


def _tighter(one: Bound, other: Bound, highest: bool) -> Bound:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other) if highest else max(one, other)
    pair = torch.stack([torch.as_tensor(bound) for bound in (one, other)])
    return pair.amin() if highest else pair.amax()


def is_within(length: int, lengths: Lengths | None) -> bool:
    """Return whether a length is in the range; a GPU that knows the bounds is waited for."""
    if lengths is None:
        return True
    lowest, highest = lengths
    return (lowest is None or length >= int(lowest)) and (highest is None or length <= int(highest))


def limits_in_tensor(lengths: Lengths | None) -> dict[str, Tensor]:
    """Return a range of lengths as a tensor `(2,)` int64 named `lengths`; no tensor, if it is unlimited."""
    if lengths is None:
        return {}
    pairs = zip(lengths, ALL_LENGTHS, strict=True)
    return {"lengths": torch.tensor([int(unlimited if x is None else x) for x, unlimited in pairs])}


def limits_of_tensor(stored: Tensor | None) -> Lengths | None:
    """Return the range of lengths that `limits_in_tensor` stored.

    Raises:
        ValueError: the tensor has another shape or type.
    """
    if stored is None:
        return None
    if stored.shape != (2,) or stored.dtype is not torch.int64:
        shape = tuple(stored.shape)
        raise ValueError(f"lengths must be int64 of shape (2,), got {stored.dtype} of shape {shape}")
    lowest, highest = stored.tolist()
    return lowest, highest
