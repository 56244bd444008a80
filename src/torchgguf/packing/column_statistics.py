"""How strongly tensors were driven: squares of activations, summed over texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_SIZE = 512  # tokens; what llama-imatrix takes if it is not told


@dataclass(frozen=True)
class Activations:
    """What the columns of a tensor were multiplied by, in all.

    Attributes:
        sums: of squares, float `(experts, columns)`; one row for a tensor that is no experts'. Files in the
            older format have one row for all experts, one after the other.
        counts: int64 `(experts,)`: how many rows of activations each sum is made of.
    """

    sums: Tensor
    counts: Tensor

    @property
    def means(self) -> Tensor:
        """Mean squares, float32 in the shape of `sums`; ones where nothing was seen, as in llama-quantize."""
        counts = self.counts[:, None].float()
        return torch.where(counts > 0, self.sums.float() / counts, 1.0)

    def __add__(self, other: Activations) -> Activations:
        """Add up both. A single count stands for all experts where the other has one for each.

        ValueError if they cannot be of the same tensor.
        """
        experts = max(len(self.counts), len(other.counts))
        if self.sums.numel() != other.sums.numel() or {len(self.counts), len(other.counts)} - {1, experts}:
            raise ValueError(f"{self} in one, {other} in another")
        sums = (self.sums.flatten() + other.sums.flatten()).view(experts, -1)
        return Activations(sums, self.counts + other.counts)

    @property
    def are_squares(self) -> bool:
        """Whether the sums can be of squares: finite and not below zero."""
        low, high = self.sums.aminmax()
        return bool(low >= 0) and bool(high.isfinite())

    def __str__(self) -> str:
        """How many there are, for messages."""
        experts, columns = self.sums.shape
        return f"{columns} columns" if experts == 1 else f"{experts} experts of {columns} columns"


@dataclass(frozen=True)
class Statistics:
    """What a file holds: activations of tensors by their GGUF names, and the texts that they come from.

    Attributes:
        activations: of each tensor.
        datasets: names of the files with the texts.
        chunk_count: chunks of text that were read.
        chunk_size: tokens of a chunk.
    """

    activations: Mapping[str, Activations]
    datasets: Sequence[str] = ()
    chunk_count: int = 0
    chunk_size: int = CHUNK_SIZE
