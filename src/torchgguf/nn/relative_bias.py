"""Biases on scores by relative positions (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

Shape letters: H heads, T positions.
"""

import math

import torch
from torch import Tensor, nn


def relative_buckets(length: int, buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """Return the bucket of each pair of positions: queries in rows, keys in columns, `(T, T)` int64.

    Half of the buckets are of keys after the query. In each half, the first half are of one distance each;
    the others grow with the logarithm of the distance, and the last one contains all beyond `max_distance`.

    Args:
        length: number T of positions.
        buckets: number of buckets.
        max_distance: the distance from which on all keys are in the last bucket.
        device: of the result.
    """
    places = torch.arange(length, device=device)
    offsets = places - places[:, None]
    half = buckets // 2
    exact = half // 2
    distances = offsets.abs()
    growth = torch.log(distances.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distances < exact, distances, far) + (offsets > 0) * half


class RelativeBias(nn.Module):
    """A bias for each head and each bucket of distances; every position sees all others.

    Args:
        buckets: number of buckets, at least 4.
        heads: number H of heads; `weight` is `(buckets, H)`.
        max_distance: the distance from which on all keys are in one bucket.

    Raises:
        ValueError: the buckets are too few, or too many for the distance.
    """

    def __init__(self, buckets: int, heads: int, max_distance: int) -> None:
        super().__init__()
        if buckets < 4 or max_distance <= buckets // 4:
            raise ValueError(
                "relative_attention_num_buckets must be at least 4 and below four times "
                f"relative_attention_max_distance, got {buckets} and {max_distance}"
            )
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.max_distance = max_distance

    def forward(self, length: int) -> Tensor:
        """Return the biases of a text of this length, `(1, H, T, T)`."""
        buckets = relative_buckets(length, len(self.weight), self.max_distance, self.weight.device)
        return self.weight[buckets].permute(2, 0, 1)[None]

    def extra_repr(self) -> str:
        """Show the sizes."""
        buckets, heads = self.weight.shape
        return f"{buckets} buckets, {heads} heads, max_distance={self.max_distance}"
