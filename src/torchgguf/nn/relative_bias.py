"""Biases on scores by relative positions (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

Shape letters: H heads, T new positions, S positions seen including the new ones.
"""

import math

import torch
from torch import Tensor, nn


def relative_buckets(
    queries: Tensor, keys: int, buckets: int, max_distance: int, *, both_sides: bool = True
) -> Tensor:
    """Return the bucket of each pair of positions: queries in rows, keys in columns, `(T, S)` int64.

    With `both_sides`, half of the buckets are of keys after the query; otherwise all are of keys before it,
    and those after it are in the bucket of the query itself. Of the buckets of a side, the first half are of
    one distance each; the others grow with the logarithm of the distance, and the last one contains all
    beyond `max_distance`.

    Args:
        queries: positions of the queries, `(T,)`.
        keys: number S of keys, whose positions count from 0.
        buckets: number of buckets.
        max_distance: the distance from which on all keys are in the last bucket.
        both_sides: whether keys after the query are seen, too.
    """
    offsets = torch.arange(keys, device=queries.device) - queries[:, None]
    of_side = buckets // 2 if both_sides else buckets
    exact = of_side // 2
    distances = offsets.abs() if both_sides else (-offsets).clamp(min=0)
    growth = torch.log(distances.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (of_side - exact)).long()).clamp(max=of_side - 1)
    near = torch.where(distances < exact, distances, far)
    return near + (offsets > 0) * of_side if both_sides else near


class RelativeBias(nn.Module):
    """A bias for each head and each bucket of distances.

    Args:
        buckets: number of buckets, at least 4.
        heads: number H of heads; `weight` is `(buckets, H)`.
        max_distance: the distance from which on all keys are in one bucket.
        both_sides: whether keys after the query are seen, too.

    Raises:
        ValueError: the buckets are too few, or too many for the distance.
    """

    def __init__(self, buckets: int, heads: int, max_distance: int, *, both_sides: bool = True) -> None:
        super().__init__()
        if buckets < 4 or max_distance <= buckets // (4 if both_sides else 2):
            raise ValueError(
                "relative_attention_num_buckets must be at least 4 and below "
                f"{'four times' if both_sides else 'twice'} relative_attention_max_distance, "
                f"got {buckets} and {max_distance}"
            )
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.max_distance = max_distance
        self.both_sides = both_sides

    def buckets(self, queries: Tensor, keys: int) -> Tensor:
        """Return the bucket of each pair of positions, `(T, S)`, as `relative_buckets`."""
        return relative_buckets(
            queries, keys, len(self.weight), self.max_distance, both_sides=self.both_sides
        )

    def forward(self, buckets: Tensor) -> Tensor:
        """Return the biases of pairs in these buckets `(T, S)`: `(1, H, T, S)`."""
        return self.weight[buckets.to(self.weight.device)].permute(2, 0, 1)[None]

    def extra_repr(self) -> str:
        """Show the sizes."""
        buckets, heads = self.weight.shape
        return f"{buckets} buckets, {heads} heads, max_distance={self.max_distance}"
