"""`Change`: what an adapter adds to the matrix of one parameter or of one tensor of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


class AdapterError(ValueError):
    """An adapter is broken, does not belong to a model, or contains what a format does not support."""


@dataclass(frozen=True, slots=True)
class Change:
    """The low-rank matrix `scale * left @ right` that is added to a matrix, or to that of each expert.

    Attributes:
        left: `(..., rows, r)`.
        right: `(..., r, columns)`.
        scale: the factor on the product.
        is_lookup: whether the matrix is a table whose rows are looked up, and not multiplied by.
    """

    left: Tensor
    right: Tensor
    scale: float = 1.0
    is_lookup: bool = False

    @property
    def rank(self) -> int:
        """The number of columns of `left`, r."""
        return self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix that changes."""
        return (*self.left.shape[:-1], self.right.shape[-1])

    @property
    def transposed(self) -> Change:
        """The change of the transposed matrix."""
        return replace(self, left=self.right.mT, right=self.left.mT)

    @property
    def is_zero(self) -> bool:
        """Whether a factor of the product is zero."""
        return self.scale == 0 or not (self.left.any() and self.right.any())

    def times(self, factor: float) -> Change:
        """Return the change times a factor."""
        return replace(self, scale=self.scale * factor)

    def rescaled(self, scale: float) -> Change:
        """Return the same change with another factor: `left` makes up for it."""
        if scale == self.scale:
            return self
        return replace(self, left=self.left * (self.scale / scale), scale=scale)

    def rows(self, matrix: int, rows: Tensor | slice) -> Tensor:
        """Return rows of the change, in float32.

        Args:
            matrix: which one, of those of experts that are counted through; 0 if there is only one.
            rows: of the matrix.
        """
        left = self.left.reshape(-1, *self.left.shape[-2:])[matrix][rows].float()
        right = self.right.reshape(-1, *self.right.shape[-2:])[matrix].float()
        return self.scale * (left @ right)


def summed(changes: Sequence[Change]) -> Change:
    """Return the sum of changes of one matrix. Those with an equal factor share it: the rank stays small."""
    kinds: list[Change] = []
    for change in changes:
        change = change.rescaled(changes[0].scale)
        for i, kind in enumerate(kinds):
            if torch.equal(kind.right, change.right):
                kinds[i] = replace(kind, left=kind.left + change.left)
                break
            if torch.equal(kind.left, change.left):
                kinds[i] = replace(kind, right=kind.right + change.right)
                break
        else:
            kinds.append(change)
    left = torch.cat([kind.left for kind in kinds], dim=-1)
    return replace(kinds[0], left=left, right=torch.cat([kind.right for kind in kinds], dim=-2))
