"""Measure what packing changes in weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class PackingErrors:
    """Sums of the squares of weights, and of the squared errors from packing.

    If something was added to the weights before, also sums of its products with what packing left of it.
    """

    def __init__(self) -> None:
        self._squares = self._weighted_squares = torch.zeros(2, dtype=torch.float64, device="cpu")
        self._is_weighted = False
        self._changes = torch.zeros(3, dtype=torch.float64, device="cpu")

    def add(
        self, numbers: Tensor, packed: Tensor, importance: Tensor | None, added: Tensor | None = None
    ) -> None:
        """Add a slab.

        Args:
            numbers: `(rows, k)` before packing.
            packed: the same, unpacked again.
            importance: of the columns, `(k,)`.
            added: what was added to the weights, and is a part of `numbers`; None: nothing.
        """
        before, after = numbers.double(), packed.double()  # in float32 squares may overflow or underflow
        squares = torch.stack([after.sub_(before).square_().sum(0), before.square_().sum(0)])
        self._squares = self._squares + squares.sum(1).cpu()
        if importance is not None:
            self._is_weighted = True
            weighted = squares @ importance.to(squares.device, torch.float64)
            self._weighted_squares = self._weighted_squares + weighted.cpu()
        if added is not None:
            wanted = added.double()
            left = packed.double() - (numbers.double() - wanted)
            products = torch.stack([(wanted * wanted).sum(), (left * wanted).sum(), (left * left).sum()])
            self._changes = self._changes + products.cpu()

    @property
    def plain(self) -> float:
        """The relative error sqrt(sum((new - old)^2) / sum(old^2))."""
        return _root_of_ratio(self._squares)

    @property
    def weighted(self) -> float | None:
        """The same with squares weighted by importance; None without importances."""
        return _root_of_ratio(self._weighted_squares) if self._is_weighted else None

    @property
    def kept(self) -> float:
        """How much of what was added is left: the length of its projection; 1 if nothing was lost."""
        wanted, product, _ = self._changes.tolist()
        return product / wanted if wanted > 0 else 1.0

    @property
    def cosine(self) -> float:
        """The cosine between what was added and what is left of it, noise of packing included."""
        wanted, product, left = self._changes.tolist()
        return product / math.sqrt(wanted * left) if wanted > 0 and left > 0 else float(wanted == left)


def _root_of_ratio(sums: Tensor) -> float:
    error, whole = sums.tolist()
    return math.sqrt(error / whole) if whole > 0 else 0.0
