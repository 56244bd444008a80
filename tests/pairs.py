"""Fewer cases than a full product of parameters: each value of one meets each value of every other."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def every_pair(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return rows of a value of each axis: any two values of two axes are in some row together."""
    rows = [tuple(enumerate(places)) for places in product(*(range(len(axis)) for axis in axes))]
    missing = {pair for row in rows for pair in combinations(row, 2)}
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(missing.intersection(combinations(row, 2))))
        missing.difference_update(combinations(best, 2))
        chosen.append(tuple(axes[axis][place] for axis, place in best))
    return chosen
