"""MLPs: the gated one of llama-like models, and that of two layers."""

from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.blocks.step import Step
from torchgguf.nn import Linear, find_activation


class MLP(nn.Module):
    """`down(act(gate(x)) * up(x))`.

    Args:
        config: contains `hidden_size`, `intermediate_size` and `hidden_act`.
        bias: whether the projections have biases.
        intermediate_size: replaces the config's.

    Attributes:
        projections: names of the projections, gate, up and down.
    """

    layer_name: ClassVar[str] = "mlp"
    projections: ClassVar[tuple[str, str, str]] = ("gate_proj", "up_proj", "down_proj")

    def __init__(self, config: Any, *, bias: bool = False, intermediate_size: int | None = None) -> None:
        super().__init__()
        size = config.intermediate_size if intermediate_size is None else intermediate_size
        self.add_projections(config.hidden_size, size, bias)
        self.add_module(self.projections[2], Linear(size, config.hidden_size, bias=bias))
        self.act_fn = find_activation("hidden_act", config.hidden_act)

    def add_projections(self, hidden_size: int, intermediate_size: int, bias: bool) -> None:
        """Create the layers that `project` uses."""
        for name in self.projections[:2]:
            self.add_module(name, Linear(hidden_size, intermediate_size, bias=bias))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate and up, each `(..., intermediate_size)`."""
        gate, up, _ = self.projections
        return getattr(self, gate)(x), getattr(self, up)(x)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        gate, up = self.project(x)
        down: Tensor = getattr(self, self.projections[2])(self.act_fn(gate) * up)
        return down


class FusedMLP(MLP):
    """MLP with one projection for gate and up."""

    def add_projections(self, hidden_size: int, intermediate_size: int, bias: bool) -> None:
        """Make the one projection."""
        self.gate_up_proj = Linear(hidden_size, 2 * intermediate_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate and up, as `MLP.project`."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return gate, up


class PlainMLP(nn.Module):
    """`down(act(up(x)))`, with biases or without.

    Args:
        config: contains `hidden_size`, `intermediate_size` and `hidden_act`.
        bias: whether the projections have biases.
        intermediate_size: replaces the config's.

    Attributes:
        projections: names of the projections, up and down.
    """

    layer_name: ClassVar[str] = "mlp"
    projections: ClassVar[tuple[str, str]] = ("up_proj", "down_proj")

    def __init__(self, config: Any, *, bias: bool = False, intermediate_size: int | None = None) -> None:
        super().__init__()
        size = config.intermediate_size if intermediate_size is None else intermediate_size
        up, down = self.projections
        self.add_module(up, Linear(config.hidden_size, size, bias=bias))
        self.add_module(down, Linear(size, config.hidden_size, bias=bias))
        self.act_fn = find_activation("hidden_act", config.hidden_act)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        up, down = self.projections
        mapped: Tensor = getattr(self, down)(self.act_fn(getattr(self, up)(x)))
        return mapped
