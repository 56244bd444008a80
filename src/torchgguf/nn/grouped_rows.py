"""A linear layer whose rows come in groups, which GGUF files contain as several matrices.

A group has a segment of each kind, such as the query, the key and the values of a head. A matrix of a file
has some kinds: all segments of the first kind, group after group, then those of the next.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn

from torchgguf.nn.factors import scaled_linear, unpacked
from torchgguf.nn.layers import Linear
from torchgguf.nn.packed_matrices import PackedMatrices
from torchgguf.nn.slots import Slot
from torchgguf.quants import QuantType

# Sizes of the segments in each matrix, by its name; a group has them all, in this order.
Segments: TypeAlias = Mapping[str, tuple[int, ...]]


def split_groups(x: Tensor, groups: int, segments: Segments) -> list[Tensor]:
    """Split groups, the last dimension of `x`, into one tensor for each kind of segment."""
    sizes = [*chain.from_iterable(segments.values())]
    return [part.flatten(-2) for part in x.unflatten(-1, (groups, -1)).split(sizes, dim=-1)]


def join_groups(parts: Iterable[Tensor], groups: int) -> Tensor:
    """Return the inverse of `split_groups`."""
    return torch.cat([part.unflatten(-1, (groups, -1)) for part in parts], dim=-1).flatten(-2)


class GroupedRowsLinear(Linear):
    """A `Linear` without a bias, whose rows come in groups.

    Args:
        in_features: size of the input's last dimension.
        groups: number of groups.
        segments: sizes of the segments in each matrix of files.
    """

    def __init__(self, in_features: int, groups: int, segments: Segments) -> None:
        rows = groups * sum(map(sum, segments.values()))
        super().__init__(in_features, rows, bias=False)
        self.groups, self.segments = groups, segments

    def _kinds(self, name: str) -> list[Tensor]:
        """Return views of the weight: the segments in a matrix, `(groups, size, in_features)` each."""
        rows = self.weight.detach().view(self.groups, -1, self.in_features)
        start = sum(map(sum, [*self.segments.values()][: [*self.segments].index(name)]))
        sizes = self.segments[name]
        return [*rows[:, start : start + sum(sizes)].split(sizes, dim=1)]

    def _matrix(self, name: str) -> Tensor:
        return torch.cat([kind.flatten(0, 1) for kind in self._kinds(name)])

    def slots(self) -> Iterable[Slot]:
        """List the matrices."""
        for name, sizes in self.segments.items():
            shape = self.groups * sum(sizes), self.in_features
            yield Slot(f"{name}.weight", shape, partial(self._matrix, name), packable=True, factors=(1,))

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the matrices."""
        if self.weight.is_meta:
            empty = torch.empty(self.weight.shape, dtype=tensor.dtype, device=tensor.device)
            self.weight = nn.Parameter(empty)
        kinds = self._kinds(name.removesuffix(".weight"))
        rows = tensor.split([self.groups * kind.shape[1] for kind in kinds])
        for kind, its_rows in zip(kinds, rows, strict=True):
            kind.copy_(its_rows.view_as(kind))

    def pack(
        self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype
    ) -> "QuantizedGroupedRowsLinear":
        """Return the packed layer, as in `SlottedLayer.pack`."""
        packed = QuantizedGroupedRowsLinear(self.in_features, self.groups, self.segments)
        packed.pack(name, blocks, quant_type, dtype)
        for slot in self.slots():
            if slot.name != name and not (matrix := slot.read()).is_meta:
                packed.fill(slot.name, matrix)
        return packed


class QuantizedGroupedRowsLinear(PackedMatrices):
    """The packed form of `GroupedRowsLinear`: each matrix is uint8 `(rows, bytes_per_row)`, of its own type.

    Args:
        in_features: size of the input's last dimension.
        groups: number of groups.
        segments: sizes of the segments in each matrix, which come by `pack` or `fill`.
    """

    def __init__(self, in_features: int, groups: int, segments: Segments) -> None:
        super().__init__()
        self.in_features, self.groups, self.segments = in_features, groups, segments
        self.out_features = groups * sum(map(sum, segments.values()))

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to groups, as the plain layer, in the input's dtype."""
        kinds: list[Tensor] = []
        for name, sizes in self.segments.items():
            weight, scale = getattr(self, name), self.factor(f"{name}.weight")
            rows = scaled_linear(input, weight, self.quant_types[name], scale=scale)
            kinds += rows.split([self.groups * size for size in sizes], dim=-1)
        return join_groups(kinds, self.groups)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> GroupedRowsLinear:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        with torch.device("meta"):
            plain = GroupedRowsLinear(self.in_features, self.groups, self.segments)
        for name, kind in self.quant_types.items():
            scale = self.factor(f"{name}.weight")
            plain.fill(f"{name}.weight", unpacked(getattr(self, name), kind, dtype, scale))
        return plain

    def extra_repr(self) -> str:
        """Show the types, as in `qkv=Q4_K, gate=Q4_K`."""
        return ", ".join(f"{name}={kind.name}" for name, kind in self.quant_types.items())
