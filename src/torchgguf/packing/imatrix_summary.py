"""Summarize each tensor of an importance matrix, as `llama-imatrix --show-statistics` does."""

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.packing.column_statistics import Activations
from torchgguf.packing.imatrix import ImportanceMatrix

_INACTIVE = 1e-5  # mean squares up to this count as inactive


@dataclass(frozen=True)
class Summary:
    """Statistics of the mean squares of a tensor, over all columns of all experts that tokens reached.

    Attributes:
        name: the name of the tensor.
        elements: the number of mean squares.
        total: their sum.
        least: the smallest.
        most: the largest.
        mean: their mean.
        deviation: their standard deviation.
        active: the share of values above 1e-5.
        entropy: the entropy of their shares of the total, in bits.
        outliers: the share of values more than one standard deviation above the mean.
        similarity: the cosine between the sums and those of the same tensor in the previous layer; 0 without
            one.
    """

    name: str
    elements: int
    total: float
    least: float
    most: float
    mean: float
    deviation: float
    active: float
    entropy: float
    outliers: float
    similarity: float

    @property
    def evenness(self) -> float:
        """The entropy divided by that of equal values."""
        return self.entropy / math.log2(self.elements) if self.elements > 1 else 1.0


def summarize(matrix: ImportanceMatrix) -> list[Summary]:
    """Return the summaries of all tensors with activations, in the order of the matrix."""
    return [
        _summary(name, each, matrix.activations.get(_one_layer_before(name)))
        for name, each in matrix.activations.items()
        if bool(each.counts.any())
    ]


def _summary(name: str, activations: Activations, before: Activations | None) -> Summary:
    squares = activations.means[activations.counts > 0].double().flatten()
    mean, deviation = squares.mean(), squares.std(correction=0)
    shares = squares / squares.sum().clamp(min=torch.finfo(squares.dtype).tiny)
    return Summary(
        name,
        squares.numel(),
        total=float(squares.sum()),
        least=float(squares.min()),
        most=float(squares.max()),
        mean=float(mean),
        deviation=float(deviation),
        active=_share(squares > _INACTIVE),
        entropy=-float(torch.xlogy(shares, shares).sum()) / math.log(2),
        outliers=_share(squares > mean + deviation) if deviation > 0 else 0.0,
        similarity=_similarity(activations, before),
    )


def _one_layer_before(name: str) -> str:
    return re.sub(r"(?<=blk\.)\d+(?=\.)", lambda number: str(int(number[0]) - 1), name, count=1)


def _share(is_so: Tensor) -> float:
    return float(is_so.double().mean())


def _similarity(activations: Activations, before: Activations | None) -> float:
    if before is None or before is activations or before.sums.numel() != activations.sums.numel():
        return 0.0
    here, there = (each.sums.double().flatten() for each in (activations, before))
    return float(F.cosine_similarity(here, there, dim=0))
