"""Statistics of the columns of weight matrices: squares of activations, summed over texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_SIZE = 512  # tokens; the default of llama-imatrix


@dataclass(frozen=True)
class Activations:
    """Sums of the squared activations that the columns of a tensor were multiplied by.

    Attributes:
        sums: sums of squares, float `(experts, columns)`; one row for a dense tensor. Files in the older
            format have one row with all experts one after the other.
        counts: int64 `(experts,)`, the number of activations in each sum.
    """

    sums: Tensor
    counts: Tensor

    @property
    def means(self) -> Tensor:
        """Mean squares, float32 of the shape of `sums`; 1 where `counts` is 0, as in llama-quantize."""
        counts = self.counts[:, None].float()
        return torch.where(counts > 0, self.sums.float() / counts, 1.0)

    def __add__(self, other: Activations) -> Activations:
        """Add both. If only one has a count for each expert, the single count of the other applies to all.

        Raises:
            ValueError: their sizes differ.
        """
        experts = max(len(self.counts), len(other.counts))
        if self.sums.numel() != other.sums.numel() or {len(self.counts), len(other.counts)} - {1, experts}:
            raise ValueError(f"{self} in one, {other} in the other")
        sums = (self.sums.flatten() + other.sums.flatten()).view(experts, -1)
        return Activations(sums, self.counts + other.counts)

    @property
    def are_squares(self) -> bool:
        """Whether the sums are valid for squares: finite and not negative."""
        low, high = self.sums.aminmax()
        return bool(low >= 0) and bool(high.isfinite())

    def __str__(self) -> str:
        """Return the sizes, for messages."""
        experts, columns = self.sums.shape
        return f"{columns} columns" if experts == 1 else f"{experts} experts of {columns} columns"


@dataclass(frozen=True)
class Statistics:
    """The contents of a file: activations of tensors, and the texts that they come from.

    Attributes:
        activations: by GGUF name of the tensor.
        datasets: names of the files with the texts.
        chunk_count: the number of chunks of text.
        chunk_size: the length of a chunk in tokens.
    """

    activations: Mapping[str, Activations]
    datasets: Sequence[str] = ()
    chunk_count: int = 0
    chunk_size: int = CHUNK_SIZE
