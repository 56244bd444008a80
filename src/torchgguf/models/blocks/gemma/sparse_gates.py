"""MLPs of Gemma 3n that keep only a share of their gates: those far above the mean of a token's gates."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.core.config_map import Header, Rule

_KEY = "activation_sparsity_scale"
# What files that state nothing are of: the released models.
_SHARE, _LAYERS = 0.95, 10


def deviations(share: float) -> float:
    """Return how many standard deviations above the mean a share of normal numbers ends, in float32."""
    number = torch.tensor(share, dtype=torch.float32, device="cpu")  # of a skeleton, too
    return float(torch.erfinv(2 * number - 1) * math.sqrt(2))


def usual_shares(layers: int) -> list[float]:
    """Return the shares of gates that layers leave out if nothing states them."""
    sparse = _LAYERS if layers > _LAYERS else 0
    return [_SHARE] * sparse + [0.0] * (layers - sparse)


class SparseMLP(MLP):
    """An MLP that subtracts a threshold from the gates of a token, and leaves out those below it.

    Args:
        config: as for `MLP`.
        intermediate_size: as for `MLP`.
        share: of the gates that are left out, if they are normally distributed.
    """

    def __init__(self, config: Any, intermediate_size: int, share: float) -> None:
        super().__init__(config, intermediate_size=intermediate_size)
        self.deviations = deviations(share)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate and up, as `MLP.project`."""
        gate, up = super().project(x)
        deviation, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
        return F.relu(gate - (mean + deviation * self.deviations)), up


class Sparsity(Rule):
    """Rule of `activation_sparsity_pattern`: files state deviations from the mean instead of shares."""

    keys = (_KEY,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the deviations of all layers."""
        layers = header.get("block_count", 0)
        if _KEY not in header.values:
            return {}
        stated = header.values[_KEY]
        numbers = stated if isinstance(stated, list) else []
        if len(numbers) != layers or not all(type(n) is float and not math.isnan(n) for n in numbers):
            raise GGUFError(f"{_KEY} must be {layers} numbers, one a layer")
        return {"activation_sparsity_pattern": [_share(number) for number in numbers]}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the deviations of all layers."""
        return {_KEY: [deviations(share) for share in config.activation_sparsity_pattern]}


def _share(number: float) -> float:
    """Return the share of normal numbers below a deviation, in as few digits as state the same deviation."""
    exact = 0.5 * (1 + math.erf(number / math.sqrt(2)))
    short = (float(f"{exact:.{digits}g}") for digits in range(1, 9))
    return next((share for share in short if deviations(share) == number), exact)
