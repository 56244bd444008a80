"""What became what in packing, at which size, and how much was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from torchgguf.container import TensorType


class PackedTensor(NamedTuple):
    """A tensor as it was written.

    Attributes:
        name: of the tensor.
        shape: in weights, in torch's order.
        source_type: what it was.
        type: what it has become.
        wanted: what it would have become, had the length of its rows allowed it.
        nbytes: without padding.
        error: the root of the mean square error, over that of the mean square; 0 if nothing was lost.
        weighted_error: the same with squares weighed by their column's importance; None if none is known.
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
        """How many weights the tensor has."""
        return prod(self.shape)

    @property
    def fell_back(self) -> bool:
        """Whether the length of its rows forced another type on it."""
        return self.type is not self.wanted


class Total(NamedTuple):
    """What all tensors of a type come to."""

    tensors: int
    weights: int
    nbytes: int


@dataclass
class PackingReport:
    """The tensors of a file in the order in which they were written, filled as they are.

    Attributes:
        tensors: by name.
    """

    tensors: dict[str, PackedTensor] = field(default_factory=dict)

    def add(self, tensor: PackedTensor) -> None:
        """Take down a tensor."""
        self.tensors[tensor.name] = tensor

    @property
    def weights(self) -> int:
        """Weights of all tensors."""
        return sum(tensor.weights for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes on average; 0 if there are none."""
        return 8 * self.nbytes / max(self.weights, 1)

    @property
    def fallbacks(self) -> list[PackedTensor]:
        """The tensors that the length of their rows forced another type on."""
        return [tensor for tensor in self.tensors.values() if tensor.fell_back]

    def totals(self) -> dict[TensorType, Total]:
        """Sum up by type, what takes most bytes first."""
        totals: dict[TensorType, Total] = {}
        for tensor in self.tensors.values():
            count, weights, nbytes = totals.get(tensor.type, (0, 0, 0))
            totals[tensor.type] = Total(count + 1, weights + tensor.weights, nbytes + tensor.nbytes)
        return dict(sorted(totals.items(), key=lambda item: -item[1].nbytes))
