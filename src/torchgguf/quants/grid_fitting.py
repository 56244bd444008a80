"""What the search for scales (fitting.py) takes for levels where weights are found together, in a grid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchgguf.quants.fitting import Levels, total
from torchgguf.quants.grids import grid, nearest_entries

_SHIFTS = (0.125, -0.125)


@dataclass(frozen=True)
class Grid:
    """The grid that a type finds `dim` weights at a time in."""

    name: str
    dim: int
    rough: Levels
    positive_scales: bool = True
    rounds: int = 2

    def entries(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the nearest entry to each `dim` neighbours of groups (..., k): (..., k / dim)."""
        points, weights = (t.reshape(-1, self.dim) for t in (x, w))
        return nearest_entries(self.name, points, weights)[0].view(*x.shape[:-1], -1)

    def nearest(self, x: Tensor, w: Tensor) -> Tensor:
        return grid(self.name, self.entries(x, w)).reshape(x.shape)


@dataclass(frozen=True)
class ShiftedGrid:
    """IQ1's: the entries of each `run` weights are moved up by an eighth, or all of them down."""

    name: str
    run: int
    rough: Levels
    positive_scales: bool = True
    rounds: int = 1  # a second one gains a fourth of a percent

    def entries(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entries nearest to groups (..., k), (..., k / 8), and which move down (..., k / run)."""
        points, weights = (t.reshape(-1, 8) for t in (x, w))
        (up, up_loss), (down, down_loss) = (
            nearest_entries(self.name, points, weights, shift) for shift in _SHIFTS
        )
        shape = (*x.shape[:-1], x.shape[-1] // self.run, self.run // 8)
        is_down = total(down_loss.view(shape)) < total(up_loss.view(shape))
        entries = torch.where(is_down.unsqueeze(-1), down.view(shape), up.view(shape))
        return entries.flatten(-2), is_down

    def nearest(self, x: Tensor, w: Tensor) -> Tensor:
        entries, is_down = self.entries(x, w)
        shift = torch.where(is_down, _SHIFTS[1], _SHIFTS[0]).to(x.dtype).unsqueeze(-1)
        return (grid(self.name, entries).view(*is_down.shape, -1) + shift).reshape(x.shape)


def even_signs_of(weights: Tensor, importance: Tensor) -> Tensor:
    """Which of weights (..., 8 n) are to count as negative, if of each eight an even number may.

    Where an odd number is, the weight that matters least (the first of those) changes sides.
    """
    negative = (weights < 0).view(*weights.shape[:-1], -1, 8)
    matters = (importance * weights * weights).view(negative.shape)
    odd = negative.sum(dim=-1, keepdim=True) % 2 == 1
    first_least = torch.zeros_like(negative).scatter(-1, matters.argmin(dim=-1, keepdim=True), True)
    return (negative ^ (first_least & odd)).view(weights.shape)
