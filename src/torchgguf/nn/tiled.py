"""A linear layer that reads heads in groups, and whose columns GGUF files contain in another order."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from torchgguf.nn.factors import unpacked
from torchgguf.nn.layers import Linear, QuantizedLinear
from torchgguf.nn.slots import PackedLayer, Slot
from torchgguf.quants import QuantType


def tiled(x: Tensor, groups: int, size: int) -> Tensor:
    """Return heads, the last dimension of `x`, in another order: the first ones of all groups come first.

    Args:
        x: `(..., heads * size)`; the heads of a group are neighbours.
        groups: number of groups. With the number of heads in a group instead, this is the inverse.
        size: numbers in a head.
    """
    heads: Tensor = x.unflatten(-1, (groups, -1, size))
    return heads.transpose(-3, -2).flatten(-3)


class ReadsHeads(nn.Module):
    """Base of linear layers whose columns files contain in the order of `tiled`.

    Attributes:
        groups: number of groups of heads.
        head_dim: size of a head.
    """

    groups: int
    head_dim: int

    def in_file_order(self, input: Tensor) -> Tensor:
        """Return numbers, `(..., in_features)`, in the order of a file's columns."""
        return tiled(input, self.groups, self.head_dim)


class TiledLinear(ReadsHeads, Linear):
    """A `Linear` without a bias, whose input is heads in groups, and whose columns are tiled in files.

    Blocks of packed weights run along the columns. So these stay in the order of the file, and the packed
    form moves the numbers of its input instead.

    Args:
        groups: number of groups of heads.
        heads: number of heads.
        head_dim: size of a head.
        out_features: size of the output's last dimension.
    """

    def __init__(self, groups: int, heads: int, head_dim: int, out_features: int) -> None:
        super().__init__(heads * head_dim, out_features, bias=False)
        self.groups, self.heads, self.head_dim = groups, heads, head_dim

    def slots(self) -> Iterable[Slot]:
        """List the weight with the columns of files."""
        return [replace(slot, read=self._columns) for slot in super().slots()]

    def _columns(self) -> Tensor:
        return self.in_file_order(self.weight.detach())

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the weight, given the columns of a file."""
        super().fill(name, tiled(tensor, self.heads // self.groups, self.head_dim))

    def pack(self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype) -> PackedLayer:
        """Return the packed layer, as in `SlottedLayer.pack`."""
        packed = QuantizedTiledLinear.from_packed(blocks, quant_type)
        packed.groups, packed.head_dim = self.groups, self.head_dim
        return packed


class QuantizedTiledLinear(ReadsHeads, QuantizedLinear):
    """The packed form of `TiledLinear`, with the columns of the file."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)` in the input's dtype."""
        return super().forward(self.in_file_order(input))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        heads = self.in_features // self.head_dim
        with torch.device("meta"):
            plain = TiledLinear(self.groups, heads, self.head_dim, self.out_features)
        plain.fill("weight", unpacked(self.weight, self.quant_type, dtype, self.scale))
        return plain
