"""How large the numbers are that a packed type stores: its scales are halves, or smaller still."""

from functools import cache

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType

_HUGE = torch.finfo(torch.float32).max


@cache
def capacity(kind: QuantType) -> tuple[float, float]:
    """Return the lowest and the highest number that blocks of a packed type store."""
    ends = []
    for huge in (-_HUGE, _HUGE):
        weights = torch.full((1, kind.block_size), huge, dtype=torch.float32, device="cpu")
        ends.append(kind.decode(kind.encode(weights, torch.ones_like(weights))))
    return ends[0].min().item(), ends[1].max().item()


def exceeds(weights: Tensor, kind: QuantType) -> bool:
    """Return whether finite weights are so large that blocks of a type store others in their place."""
    if kind.dtype is not None or not weights.numel():
        return False
    lowest, highest = capacity(kind)
    low, high = weights.aminmax()
    return bool((low < lowest) | (high > highest))
