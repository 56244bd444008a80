"""`LoraSettings`: what an adapter consists of, with PEFT's meaning of each field."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

ALL_LINEAR = "all-linear"

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class LoraSettings:
    """Ranks, factors and places of the low-rank matrices of one adapter.

    A target is named by its path in the model (`model.layers.0.mlp.up_proj`), or by the end of it, from a dot
    on (`up_proj`).

    Attributes:
        r: the rank.
        alpha: products of the adapter are multiplied by `alpha / r`, see `scaling`.
        target_modules: names of layers, or a regular expression that matches whole paths, or `ALL_LINEAR`:
            all linear layers but the one that scores tokens, and but routers.
        target_parameters: names of experts' matrices, which are parameters and not layers, such as
            `experts.down_proj`.
        exclude_modules: names of layers, or a regular expression, that `target_modules` does not apply to.
        dropout: probability with which elements of an adapter's input are zero in training.
        use_rslora: whether the factor is `alpha / sqrt(r)` (Kalajdzievski 2023, arXiv 2312.03732).
        use_dora: whether magnitudes of rows are trained separately (Liu et al. 2024, arXiv 2402.09353).
        modules_to_save: names of layers of which the adapter contains a whole copy, trained and saved.
        rank_pattern: ranks of layers that differ from `r`, by name or by a regular expression.
        alpha_pattern: the same of `alpha`.
    """

    r: int = 16
    alpha: float = 32
    target_modules: tuple[str, ...] | str = ALL_LINEAR
    target_parameters: tuple[str, ...] = ()
    exclude_modules: tuple[str, ...] | str = ()
    dropout: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: tuple[str, ...] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: a rank is not positive, or the dropout is not a probability below 1.
        """
        for rank in (self.r, *self.rank_pattern.values()):
            if rank < 1:
                raise ValueError(f"r must be at least 1, got {rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {self.dropout}")

    def rank_of(self, path: str) -> int:
        """Return the rank of a layer, given its path in the model."""
        return _of_pattern(self.rank_pattern, path, self.r)

    def scaling_of(self, path: str) -> float:
        """Return the factor on an adapter's products in a layer, given its path in the model."""
        rank, alpha = self.rank_of(path), _of_pattern(self.alpha_pattern, path, self.alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _of_pattern(pattern: Mapping[str, _Number], path: str, default: _Number) -> _Number:
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return default
