"""The layers: projections, a short convolution along the text, the recurrence, a gated norm.

Shape letters: B batch, T new positions, K heads of queries and keys, H heads of values (a multiple of K), N
size of keys, V size of values, C channels: numbers of all queries, keys and values.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks.gated_delta.config import GatedDeltaConfig
from torchgguf.models.blocks.recurrent import RecurrentMixer
from torchgguf.models.blocks.step import Step
from torchgguf.nn import (
    NEGATIVE_EXP,
    CausalConv1d,
    FormedLayer,
    GatedRMSNorm,
    Linear,
    Padding,
    find_activation,
    gated_delta_rule,
)
from torchgguf.nn.grouped_rows import GroupedRowsLinear, split_groups
from torchgguf.nn.tiled import TiledLinear

# Added to the squared lengths of queries and keys.
_EPSILON = 1e-6


class GatedDeltaNet(FormedLayer, RecurrentMixer):
    """The base: subclasses define the projections of the stream.

    Args:
        config: of a model.
        layer_idx: the number of the layer.
    """

    layer_name = "linear_attn"
    file_forms: ClassVar = {"A_log": NEGATIVE_EXP}

    def __init__(self, config: GatedDeltaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.sizes = config.linear_sizes
        self.key_dim, self.value_dim = config.linear_key_head_dim, config.linear_value_head_dim
        heads = config.linear_num_value_heads
        self.add_projections(config)
        self.conv1d = CausalConv1d(sum(self.sizes), config.linear_conv_kernel_dim, bias=False)
        self.act_fn = find_activation("hidden_act", config.hidden_act)
        self.dt_bias = nn.Parameter(torch.ones(heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(0.01, 16.0).log())
        self.norm = GatedRMSNorm(self.value_dim, eps=config.rms_norm_eps)
        self.out_proj = self.make_output(config)

    def add_projections(self, config: GatedDeltaConfig) -> None:
        """Create the layers that `project` uses."""
        raise NotImplementedError

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return queries, keys and values in one, gates, and what strengths and decays depend on.

        Args:
            x: the stream, `(B, T, hidden_size)`.

        Returns:
            Tensors `(B, T, C)`, `(B, T, H * V)`, `(B, T, H)` and `(B, T, H)`.
        """
        raise NotImplementedError

    def make_output(self, config: GatedDeltaConfig) -> nn.Module:
        """Create the layer from all values to the stream."""
        return Linear(self.sizes[2], config.hidden_size, bias=False)

    def mix(self, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to what the layer adds to it, as `RecurrentMixer.mix`."""
        batch, new, _ = x.shape
        qkv, gate, b, a = self.project(x)
        qkv = self.act_fn(self.convolve(self.conv1d, qkv.transpose(1, 2), step, padding)).transpose(1, 2)
        query, key, value = qkv.split(self.sizes, dim=-1)
        query, key = (unit(x.unflatten(-1, (-1, self.key_dim))) for x in (query, key))
        value = value.unflatten(-1, (-1, self.value_dim))
        decay = self.in_file_form("A_log") * F.softplus(a.float() + self.dt_bias.float())
        beta = b.sigmoid()
        if padding is not None:
            real = padding.real[..., None]
            decay, beta = decay * real, beta * real
        shape = (batch, value.shape[2], self.key_dim, self.value_dim)
        state = self.read_state(shape, step, x.device)
        query = query * self.key_dim**-0.5
        mixed, state = gated_delta_rule(query, key, value, decay, beta, state)
        self.write_state(state, step, new)
        normed = self.norm(mixed, gate.view_as(mixed))
        output: Tensor = self.out_proj(normed.flatten(-2))
        return output


def unit(x: Tensor) -> Tensor:
    """Return vectors, the last dimension of `x`, divided by their lengths, in float32."""
    wide = x.float()
    return wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + _EPSILON)


class SeparateGatedDeltaNet(GatedDeltaNet):
    """The layer with separate projections for gates, strengths and decays; in files, heads are tiled."""

    def add_projections(self, config: GatedDeltaConfig) -> None:
        """Create the layers that `project` uses."""
        hidden, heads = config.hidden_size, config.linear_num_value_heads
        self.in_proj_qkv = Linear(hidden, sum(self.sizes), bias=False)
        self.in_proj_z = Linear(hidden, self.sizes[2], bias=False)
        self.in_proj_b = Linear(hidden, heads, bias=False)
        self.in_proj_a = Linear(hidden, heads, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `GatedDeltaNet.project` does."""
        return self.in_proj_qkv(x), self.in_proj_z(x), self.in_proj_b(x), self.in_proj_a(x)

    def make_output(self, config: GatedDeltaConfig) -> nn.Module:
        """Create the layer from all values to the stream."""
        groups, heads = config.linear_num_key_heads, config.linear_num_value_heads
        if groups == heads:
            return super().make_output(config)
        return TiledLinear(groups, heads, self.value_dim, config.hidden_size)


class FusedGatedDeltaNet(GatedDeltaNet):
    """The layer with one projection for queries, keys, values and gates, and one for strengths and decays.

    Rows come in groups: a head of queries, one of keys, and the heads of values that use them.
    """

    def add_projections(self, config: GatedDeltaConfig) -> None:
        """Create the layers that `project` uses."""
        hidden, groups = config.hidden_size, config.linear_num_key_heads
        heads = config.linear_num_value_heads // groups
        values = heads * self.value_dim
        self.groups = groups
        self.of_values = {"qkv": (self.key_dim, self.key_dim, values), "gate": (values,)}
        self.of_rates = {"beta": (heads,), "alpha": (heads,)}
        self.in_proj_qkvz = GroupedRowsLinear(hidden, groups, self.of_values)
        self.in_proj_ba = Linear(hidden, 2 * config.linear_num_value_heads, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `GatedDeltaNet.project` does."""
        *qkv, gate = split_groups(self.in_proj_qkvz(x), self.groups, self.of_values)
        b, a = split_groups(self.in_proj_ba(x), self.groups, self.of_rates)
        return torch.cat(qkv, dim=-1), gate, b, a
