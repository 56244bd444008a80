"""The mixer of Mamba 2 (Dao and Gu 2024, arXiv 2405.21060), its rows of weight maps, the rules of its sizes.

Shape letters: B batch, T new positions, H heads, P size of a head, G groups, N size of the state, I = H * P.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.blocks.mamba import in_dtype_of
from torchgguf.models.blocks.recurrent import RecurrentMixer
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.config_map import Field, Header, Rule, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import ParameterRow, Row
from torchgguf.nn import CausalConv1d, FileForm, FormedLayer, Linear, Padding, state_space_scan
from torchgguf.nn.activations import find_activation
from torchgguf.nn.gated_norm import GatedGroupRMSNorm

_INNER, _HEADS = "ssm.inner_size", "ssm.time_step_rank"


@dataclass(frozen=True)
class Mamba2Options:
    """What a mixer is made of.

    Attributes:
        heads: number H of heads.
        head_dim: size P of a head.
        groups: number G of groups; each has one B and one C for all its heads, and is normalised by itself.
        state_size: size N of a row of the state.
        kernel_size: of the convolution.
        eps: of the norm.
        activation: name of what follows the convolution.
        conv_bias: whether the convolution has a bias.
        bias: whether the projections have biases.
        limits: the least and the largest step size.
        initial: bounds of the step sizes of a new model, and the lowest of all; None: their bias is 1.
    """

    heads: int
    head_dim: int
    groups: int
    state_size: int
    kernel_size: int
    eps: float
    activation: str = "silu"
    conv_bias: bool = True
    bias: bool = False
    limits: tuple[float, float] = (0.0, torch.inf)
    initial: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Check the groups."""
        if min(self.heads, self.head_dim, self.groups) < 1 or self.heads % self.groups:
            raise ValueError(
                f"the heads of a Mamba 2 mixer must be a positive multiple of its groups, got {self.heads} "
                f"heads of size {self.head_dim} and {self.groups} groups"
            )

    @property
    def size(self) -> int:
        """The size I of all heads together."""
        return self.heads * self.head_dim

    @property
    def shared_size(self) -> int:
        """The size of B, or of C, of all groups together."""
        return self.groups * self.state_size


def _negative_exp(logarithm: Tensor) -> Tensor:
    return -logarithm.exp().unsqueeze(-1)


def _log_of_negative(stored: Tensor) -> Tensor:
    return (-stored).log().squeeze(-1)


def _as_column(vector: Tensor) -> Tensor:
    return vector.unsqueeze(-1)


def _as_vector(column: Tensor) -> Tensor:
    return column.squeeze(-1)


class Mamba2Mixer(FormedLayer, RecurrentMixer):
    """A convolution, then a recurrence of each head with decays and step sizes of its own, then a gated norm.

    Args:
        hidden_size: size of the stream.
        layer_idx: number of the layer.
        options: sizes, and what differs between models.
    """

    file_forms: ClassVar = {
        "A_log": FileForm(_negative_exp, _log_of_negative, columns=(1,)),
        "D": FileForm(_as_column, _as_vector, columns=(1,)),
    }

    def __init__(self, hidden_size: int, layer_idx: int, options: Mamba2Options) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.options = options
        channels = options.size + 2 * options.shared_size
        self.parts = (options.size, channels, options.heads)
        self.conv1d = CausalConv1d(channels, options.kernel_size, bias=options.conv_bias)
        self.in_proj = Linear(hidden_size, sum(self.parts), bias=options.bias)
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.empty(options.heads)) for _ in range(3))
        self.norm = self.make_norm()
        self.out_proj = Linear(options.size, hidden_size, bias=options.bias)
        self.act = find_activation("the activation of a Mamba 2 mixer", options.activation)

    def make_norm(self) -> nn.Module:
        """Create what maps the outputs of all heads and the gate, `(B, T, I)` each, to one tensor."""
        return GatedGroupRMSNorm(self.options.size, self.options.groups, self.options.eps)

    def init_parameters(self) -> None:
        """Set decays of 1 to H, a skip of 1 and a bias for step sizes, drawn if the options state bounds."""
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1, len(self.A_log) + 1).log())
            self.D.fill_(1.0)
            self.dt_bias.fill_(1.0)
            if self.options.initial is not None:
                shortest, longest, lowest = self.options.initial
                logarithm = self.dt_bias.uniform_(math.log(shortest), math.log(longest))
                step_size = logarithm.exp().clamp(min=lowest)
                self.dt_bias.copy_(step_size + (-(-step_size).expm1()).log())  # the inverse of softplus

    def project(self, x: Tensor) -> Tensor:
        """Map the stream to gates, channels of the convolution and step sizes, `(B, T, I + channels + H)`."""
        projected: Tensor = self.in_proj(in_dtype_of(self.in_proj, x))
        return projected

    def mix(self, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to what the layer adds to it."""
        options, (batch, new, _) = self.options, x.shape
        gate, channels, step_size = self.project(x).split(self.parts, dim=-1)
        convolved = self.act(self.convolve(self.conv1d, channels.transpose(1, 2), step, padding))
        sizes = (options.size, options.shared_size, options.shared_size)
        u, b, c = convolved.transpose(1, 2).split(sizes, dim=-1)
        step_size = F.softplus(step_size.float() + self.dt_bias.float()).clamp(*options.limits)
        if padding is not None:
            step_size = step_size.masked_fill(~padding.real[..., None], 0.0)  # leaves the state as it is
        u = u.unflatten(-1, (options.heads, options.head_dim))
        b, c = (shared.unflatten(-1, (options.groups, options.state_size)) for shared in (b, c))
        state = self.read_state(
            (batch, options.heads, options.head_dim, options.state_size), step, device=x.device
        )
        output, state = state_space_scan(u, step_size, self.in_file_form("A_log").squeeze(-1), b, c, state)
        self.write_state(state, step, new)
        output = output + (self.D[:, None] * u).to(u.dtype)
        mapped: Tensor = self.out_proj(self.norm(output.flatten(2), gate))
        return mapped


def mamba2_rows(block: str) -> tuple[Row, ...]:
    """Return the rows of a mixer, given the name of the module in a layer that is one."""
    mixer = f"layers.{{}}.{block}"
    return (
        Row("blk.{}.ssm_in", f"{mixer}.in_proj"),
        Row("blk.{}.ssm_conv1d", f"{mixer}.conv1d"),
        ParameterRow("blk.{}.ssm_dt.bias", f"{mixer}.dt_bias"),
        ParameterRow("blk.{}.ssm_a", f"{mixer}.A_log"),
        ParameterRow("blk.{}.ssm_d", f"{mixer}.D"),
        Row("blk.{}.ssm_norm", f"{mixer}.norm"),
        Row("blk.{}.ssm_out", f"{mixer}.out_proj"),
    )


@dataclass(frozen=True)
class HeadSizes(Rule):
    """The number and the size of a mixer's heads; files state the number, and the size of all together.

    Attributes:
        heads: the field of the number.
        head_dim: the field of the size.
    """

    heads: str
    head_dim: str
    keys = (_INNER, _HEADS)

    def read(self, header: Header) -> dict[str, Any]:
        """Read both."""
        size, heads = (header.positive(key, int) for key in self.keys)
        limit = largest_dimension(header)
        if size > limit or size % heads:
            raise GGUFError(
                f"{_INNER} must be a multiple of {_HEADS}, at most {limit}, got {size} and {heads}"
            )
        return {self.heads: heads, self.head_dim: size // heads}

    def write(self, config: Any) -> dict[str, Any]:
        """Write both."""
        heads, head_dim = getattr(config, self.heads), getattr(config, self.head_dim)
        return {_INNER: heads * head_dim, _HEADS: heads}


# Step sizes have no bounds in files.
UNLIMITED_STEPS = Unwritable("time_step_limit", [0.0, math.inf])


@dataclass(frozen=True)
class Expand(Rule):
    """The field that states how many times the width the size of a mixer is.

    Attributes:
        name: of the field.
    """

    name: str
    keys = (_INNER,)

    def read(self, header: Header) -> dict[str, Any]:
        """Return the quotient."""
        size, width = (header.positive(key, int) for key in (_INNER, "embedding_length"))
        return {self.name: size // width}


class LongestText(Field):
    """The length of the longest text, which new files of recurrent models state as 2^20.

    Args:
        is_recurrent: returns whether a config describes such a model.
    """

    def __init__(self, is_recurrent: Callable[[Any], bool] = lambda config: True) -> None:
        super().__init__("context_length", "max_position_embeddings")
        self.is_recurrent = is_recurrent

    def write(self, config: Any) -> dict[str, Any]:
        """Write the number."""
        return {self.key: 1 << 20} if self.is_recurrent(config) else super().write(config)


def mamba2_rules(
    heads: str, head_dim: str, groups: str, state_size: str, kernel_size: str
) -> tuple[Rule, ...]:
    """Return the rules for the sizes of mixers, given the names of their fields."""
    return (
        Field("ssm.conv_kernel", kernel_size, limit=largest_dimension),
        Field("ssm.state_size", state_size, limit=largest_dimension),
        Field("ssm.group_count", groups, limit=largest_dimension),
        HeadSizes(heads, head_dim),
    )
