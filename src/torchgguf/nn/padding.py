"""Padding among new positions, moved where recurrent layers and convolutions do not meet it.

Shape letters: B batch, T new positions.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from torchgguf.nn.cache import Cache
from torchgguf.nn.masks import new_padding
from torchgguf.nn.tracing import is_traced


@dataclass(frozen=True, slots=True)
class Padding:
    """Which new positions are padding, and the order in which it comes last.

    A layer whose states depend on neighbours moves padding to the end of each row. There it changes no
    output, and the state after the last real position is the state after the row.

    Attributes:
        order: the real positions of each row in their order, then its padding, `(B, T)` int64.
        back: the inverse of `order`, `(B, T)` int64.
        lengths: the number of real positions of each row, `(B,)` int64.
    """

    order: Tensor
    back: Tensor
    lengths: Tensor

    @classmethod
    def among_new(cls, attention_mask: Tensor | None, new: int, cache: Cache | None) -> Self | None:
        """Return the padding of one forward pass, or None if there is none.

        Args:
            attention_mask: `(B, S)`, zero where a position, cached ones included, is padding; or None.
            new: the number T of new positions.
            cache: the states that the layers will use.
        """
        padding = new_padding(attention_mask, new, cache)
        if padding is None:
            return None
        # A compiled graph does not depend on the values of a tensor, and a GPU would stall.
        asked = padding.device.type == "cpu" and not is_traced()
        if asked and not padding.any():
            return None
        order = padding.int().argsort(dim=1, stable=True)
        return cls(order, order.argsort(dim=1), (~padding).sum(1))

    def to_end(self, x: Tensor) -> Tensor:
        """Return `x`, `(B, T, ...)`, with the padding of each row after its real positions."""
        return _in_order(x, self.order)

    def restore(self, x: Tensor) -> Tensor:
        """Return the inverse of `to_end`."""
        return _in_order(x, self.back)

    @property
    def real(self) -> Tensor:
        """Which positions are real after `to_end`, bool `(B, T)`."""
        places = torch.arange(self.order.shape[1], device=self.lengths.device)
        return places < self.lengths[:, None]

    def to(self, device: torch.device | str | int) -> "Padding":
        """Return the padding on a device."""
        return Padding(self.order.to(device), self.back.to(device), self.lengths.to(device))


def _in_order(x: Tensor, order: Tensor) -> Tensor:
    index = order.view(*order.shape, *(1,) * (x.dim() - 2))
    return x.take_along_dim(index, dim=1)
