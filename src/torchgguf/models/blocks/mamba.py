"""The mixer of Mamba (Gu and Dao 2023, arXiv 2312.00752), the rules of its sizes and its rows of weight maps.

Shape letters: B batch, T new positions, C channels, N size of a channel's state, R rank of step sizes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.blocks.recurrent import RecurrentMixer
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.config_map import Field, Header, Rule, largest_dimension
from torchgguf.models.core.weight_map import ParameterRow, Row
from torchgguf.nn import (
    NEGATIVE_EXP,
    CausalConv1d,
    FormedLayer,
    Linear,
    Padding,
    find_activation,
    selective_scan,
)


@dataclass(frozen=True)
class MambaSizes:
    """Sizes of a mixer.

    Attributes:
        hidden_size: of the stream.
        channels: number C of channels.
        state_size: size N of a channel's state.
        rank: rank R of step sizes.
        kernel_size: of the convolution.
    """

    hidden_size: int
    channels: int
    state_size: int
    rank: int
    kernel_size: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        if min(vars(self).values()) < 1:
            raise ValueError(f"the sizes of a Mamba mixer must be above 0, got {self}")


class MambaMixer(FormedLayer, RecurrentMixer):
    """A convolution, then a recurrence of each channel whose decay, input and output depend on the text.

    Args:
        sizes: of the mixer.
        layer_idx: number of the layer.
        activation: name of what follows the convolution.
        conv_bias: whether the convolution has a bias.
        bias: whether the projections to channels and back have biases.

    Attributes:
        must_be_plain: whether transformers' mixers read weights that are inside of layers.
    """

    must_be_plain: ClassVar[bool] = True
    file_forms: ClassVar = {"A_log": NEGATIVE_EXP}
    wide: ClassVar = ("A_log", "D")

    def __init__(
        self, sizes: MambaSizes, layer_idx: int, activation: str, *, conv_bias: bool, bias: bool
    ) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.parts = (sizes.rank, sizes.state_size, sizes.state_size)
        self.conv1d = CausalConv1d(sizes.channels, sizes.kernel_size, bias=conv_bias)
        self.in_proj = Linear(sizes.hidden_size, 2 * sizes.channels, bias=bias)
        self.x_proj = Linear(sizes.channels, sum(self.parts), bias=False)
        self.dt_proj = Linear(sizes.rank, sizes.channels, bias=True)
        self.A_log = nn.Parameter(torch.empty(sizes.channels, sizes.state_size))
        self.D = nn.Parameter(torch.empty(sizes.channels))
        self.out_proj = Linear(sizes.channels, sizes.hidden_size, bias=bias)
        self.act = find_activation("hidden_act", activation)

    def init_parameters(self) -> None:
        """Set the decays of each channel to 1, …, N, and the skip to 1."""
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1).log().expand_as(self.A_log))
            self.D.fill_(1.0)

    def select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what determines step sizes, `(B, T, R)`, inputs and outputs, `(B, T, N)` each."""
        rank, b, c = self.x_proj(u).split(self.parts, dim=-1)
        return rank, b, c

    def mix(self, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to what the layer adds to it."""
        batch, new, _ = x.shape
        u, gate = self.in_proj(in_dtype_of(self.in_proj, x)).chunk(2, dim=-1)
        u = self.act(self.convolve(self.conv1d, u.transpose(1, 2), step, padding)).transpose(1, 2)
        rank, b, c = self.select(u)
        step_size = F.softplus(self.dt_proj(rank).float())
        if padding is not None:
            step_size = step_size.masked_fill(~padding.real[..., None], 0.0)  # leaves the state as it is
        decay = self.in_file_form("A_log")
        state = self.read_state((batch, *decay.shape), step, x.device)
        output, state = selective_scan(u, step_size, decay, b, c, state)
        self.write_state(state, step, new)
        output = (output + u * self.D.float()) * F.silu(gate)
        mapped: Tensor = self.out_proj(output.to(u.dtype))
        return mapped


class NormedMambaMixer(MambaMixer):
    """A mixer with norms of what determines step sizes, inputs and outputs: `dt`, `B` and `C`.

    Args:
        sizes: as in `MambaMixer`.
        layer_idx: as in `MambaMixer`.
        activation: as in `MambaMixer`.
        norm: creates a norm of this size.
        conv_bias: as in `MambaMixer`.
        bias: as in `MambaMixer`.
    """

    def __init__(
        self,
        sizes: MambaSizes,
        layer_idx: int,
        activation: str,
        norm: Callable[[int], nn.Module],
        *,
        conv_bias: bool,
        bias: bool,
    ) -> None:
        super().__init__(sizes, layer_idx, activation, conv_bias=conv_bias, bias=bias)
        self.dt_layernorm, self.b_layernorm, self.c_layernorm = map(norm, self.parts)

    def select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what determines step sizes, inputs and outputs, normalised."""
        rank, b, c = super().select(u)
        return self.dt_layernorm(rank), self.b_layernorm(b), self.c_layernorm(c)


def in_dtype_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a tensor in the dtype of the weights that multiply it; packed ones multiply any."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return x.to(weight.dtype) if weight.is_floating_point() else x


def resolved_rank(name: str, rank: int | str, hidden_size: int) -> int:
    """Return the rank of step sizes; `"auto"` is a sixteenth of the stream.

    Args:
        name: of the field of the config.
        rank: its value.
        hidden_size: size of the stream.

    Raises:
        ValueError: the rank is another text.
    """
    if rank == "auto":
        return math.ceil(hidden_size / 16)
    if isinstance(rank, str):
        raise ValueError(f"{name} must be 'auto' or int, got {rank!r}")
    return rank


class Expansion(Rule):
    """The number of channels for each number in the stream.

    Args:
        name: of the field of the config.
    """

    keys = ("ssm.inner_size",)

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, header: Header) -> dict[str, Any]:
        """Return how many times the width the number of channels is."""
        width, channels = (header.positive(key, int) for key in ("embedding_length", self.keys[0]))
        if channels % width or channels > largest_dimension(header):
            raise GGUFError(f"{self.keys[0]} must be a multiple of the width {width}, got {channels}")
        return {self._name: channels // width}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the number of channels."""
        return {self.keys[0]: getattr(config, self._name) * config.hidden_size}


def mixer_rules(kernel: str, state: str, rank: str, expansion: str) -> tuple[Rule, ...]:
    """Return the rules for the sizes of mixers, given the names of their fields."""
    fields = {"ssm.conv_kernel": kernel, "ssm.state_size": state, "ssm.time_step_rank": rank}
    sizes = (Field(key, name, limit=largest_dimension) for key, name in fields.items())
    return (*sizes, Expansion(expansion))


def mixer_rows(mixer: str) -> tuple[Row, ...]:
    """Return the rows of mixers, given the attribute of a layer that holds its mixer."""
    modules = {
        "ssm_in": "in_proj",
        "ssm_conv1d": "conv1d",
        "ssm_x": "x_proj",
        "ssm_dt": "dt_proj",
        "ssm_out": "out_proj",
    }
    parameters = {"ssm_a": "A_log", "ssm_d": "D"}
    return (
        *(Row(f"blk.{{}}.{name}", f"layers.{{}}.{mixer}.{module}") for name, module in modules.items()),
        *(ParameterRow(f"blk.{{}}.{name}", f"layers.{{}}.{mixer}.{p}") for name, p in parameters.items()),
    )


def normed_mixer_rows(mixer: str) -> tuple[Row, ...]:
    """Return the rows of mixers with norms, as `mixer_rows`."""
    norms = (Row(f"blk.{{}}.ssm_{x}_norm", f"layers.{{}}.{mixer}.{x}_layernorm") for x in ("dt", "b", "c"))
    return (*mixer_rows(mixer), *norms)
