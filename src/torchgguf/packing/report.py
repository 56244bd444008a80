"""Reports of packing: old and new types, sizes and errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from torchgguf.container import TensorType


class PackedTensor(NamedTuple):
    """One written tensor.

    Attributes:
        name: the name in the file.
        shape: sizes in weights, in torch's order.
        source_type: the type before.
        type: the type after.
        wanted: the type that the recipe or the user chose; it differs from `type` if rows do not divide into
            its blocks.
        nbytes: the new size in bytes, without padding.
        error: the relative error sqrt(sum((new - old)^2) / sum(old^2)); 0 if nothing was lost.
        weighted_error: the same with squares weighted by the importance of their column; None without one.
    """

    name: str
    shape: tuple[int, ...]
    source_type: TensorType
    type: TensorType
    wanted: TensorType
    nbytes: int
    error: float = 0.0
    weighted_error: float | None = None

    @property
    def weights(self) -> int:
        """The number of weights in the tensor."""
        return prod(self.shape)

    @property
    def fell_back(self) -> bool:
        """Whether the length of its rows required another type than the wanted one."""
        return self.type is not self.wanted


class Total(NamedTuple):
    """Sums over all tensors of one type; `nbytes` without padding."""

    tensors: int
    weights: int
    nbytes: int


@dataclass
class PackingReport:
    """The tensors of a file in the order of writing. Packing fills it.

    Attributes:
        tensors: the written tensors by name.
    """

    tensors: dict[str, PackedTensor] = field(default_factory=dict)

    def add(self, tensor: PackedTensor) -> None:
        """Add a written tensor."""
        self.tensors[tensor.name] = tensor

    @property
    def weights(self) -> int:
        """The number of weights in all tensors."""
        return sum(tensor.weights for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """The size of all tensors in bytes, without padding."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """The average size of a weight in bits; 0 without weights."""
        return 8 * self.nbytes / max(self.weights, 1)

    @property
    def fallbacks(self) -> list[PackedTensor]:
        """The tensors whose rows required another type than the wanted one."""
        return [tensor for tensor in self.tensors.values() if tensor.fell_back]

    def totals(self) -> dict[TensorType, Total]:
        """Return the sums by type, the largest number of bytes first."""
        totals: dict[TensorType, Total] = {}
        for tensor in self.tensors.values():
            count, weights, nbytes = totals.get(tensor.type, (0, 0, 0))
            totals[tensor.type] = Total(count + 1, weights + tensor.weights, nbytes + tensor.nbytes)
        return dict(sorted(totals.items(), key=lambda item: -item[1].nbytes))
