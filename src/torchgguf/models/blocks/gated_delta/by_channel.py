"""Kimi Delta Attention: the delta rule with a decay of each channel (Moonshot AI 2025, arXiv 2510.26692).

Shape letters: B batch, T new positions, H heads, N size of a head.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks.gated_delta.mixers import unit
from torchgguf.models.blocks.recurrent import RecurrentMixer
from torchgguf.models.blocks.step import Step
from torchgguf.nn import NEGATIVE_EXP, CausalConv1d, FormedLayer, Linear, Padding, RMSNorm, gated_delta_rule
from torchgguf.nn.slots import Slot

_PARTS = ("q", "k", "v")


class QKVConvolution(CausalConv1d):
    """The convolution of queries, keys and values, which GGUF files contain apart: `(1, C / 3, 1, K)` each.

    llama.cpp's tools leave the first dimension out, which is 1.
    """

    _is_short = False  # as its tools write

    def slots(self) -> Iterable[Slot]:
        """List the kernels of queries, of keys and of values."""
        channels, _, size = self.weight.shape
        shapes = (1, channels // 3, 1, size), (channels // 3, 1, size)
        for name in _PARTS:
            yield Slot(f"{name}.weight", shapes[self._is_short], partial(self._read, name), also=shapes[1])

    def _part(self, name: str) -> Tensor:
        return self.weight.detach().chunk(3)[_PARTS.index(name)]

    def _read(self, name: str) -> Tensor:
        return self._part(name) if self._is_short else self._part(name)[None]

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the kernels of queries, of keys or of values."""
        if self.weight.is_meta:
            empty = torch.empty(self.weight.shape, dtype=tensor.dtype, device=tensor.device)
            self.weight = nn.Parameter(empty)
        part = self._part(name.removesuffix(".weight"))
        self._is_short = tensor.dim() == 3
        part.copy_(tensor.view(part.shape))


class ForgetGate(FormedLayer):
    """The decays: `-exp(A_log) * softplus(f_b(f_a(x)) + dt_bias)`.

    Files contain `-exp(A_log)`, `(1, 1, H, 1)`; llama.cpp's tools leave the first two dimensions out.
    """

    file_forms: ClassVar = {"A_log": NEGATIVE_EXP}
    wide = ("dt_bias", "A_log")
    _is_short = False  # as its tools write

    def __init__(self, config: Any) -> None:
        super().__init__()
        heads, self.head_dim = config.linear_num_heads, config.linear_head_dim
        self.f_a_proj = Linear(config.hidden_size, self.head_dim, bias=False)
        self.f_b_proj = Linear(self.head_dim, heads * self.head_dim, bias=False)
        self.dt_bias = nn.Parameter(torch.ones(heads * self.head_dim))
        self.A_log = nn.Parameter(torch.empty(1, 1, heads, 1).uniform_(1, 16).log())

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms of factors on the state, `(B, T, H, N)` float32."""
        steps: Tensor = F.softplus(self.f_b_proj(self.f_a_proj(x)).float() + self.dt_bias.float())
        decay: Tensor = self.in_file_form("A_log") * steps.unflatten(-1, (-1, self.head_dim))
        return decay

    def slots(self) -> Iterable[Slot]:
        """List the parameters in the form of files."""
        short = tuple(self.A_log.shape[2:])
        for slot in super().slots():
            if slot.name != "A_log":
                yield slot
            elif self._is_short:
                yield replace(slot, shape=short, read=partial(_viewed, slot.read, short))
            else:
                yield replace(slot, also=short)

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store a parameter, given the tensor of a file."""
        if name == "A_log":
            self._is_short = tensor.dim() == 2
            tensor = tensor.view(1, 1, *tensor.shape[-2:])
        super().fill(name, tensor)


def _viewed(read: Any, shape: tuple[int, ...]) -> Tensor:
    tensor: Tensor = read()
    return tensor.view(shape)


class KimiDeltaAttention(RecurrentMixer):
    """A layer with the recurrence.

    Args:
        config: contains `linear_num_heads`, `linear_head_dim`, `linear_conv_kernel_dim`, `hidden_size`,
            `rms_norm_eps`.
        layer_idx: the number of the layer.
    """

    layer_name = "self_attn"

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.head_dim = config.linear_head_dim
        hidden, size = config.hidden_size, config.linear_num_heads * config.linear_head_dim
        self.q_proj = Linear(hidden, size, bias=False)
        self.k_proj = Linear(hidden, size, bias=False)
        self.v_proj = Linear(hidden, size, bias=False)
        self.conv1d = QKVConvolution(3 * size, config.linear_conv_kernel_dim, bias=False)
        self.forget_gate = ForgetGate(config)
        self.b_proj = Linear(hidden, config.linear_num_heads, bias=False)
        self.g_a_proj = Linear(hidden, self.head_dim, bias=False)
        self.g_b_proj = Linear(self.head_dim, size, bias=False)
        self.o_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.o_proj = Linear(size, hidden, bias=False)

    def mix(self, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to what the layer adds to it, as `RecurrentMixer.mix`."""
        batch, new, _ = x.shape
        qkv = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1).transpose(1, 2)
        convolved = F.silu(self.convolve(self.conv1d, qkv, step, padding)).transpose(1, 2)
        query, key, value = convolved.unflatten(-1, (3, -1, self.head_dim)).unbind(2)
        decay, beta = self.forget_gate(x), self.b_proj(x).sigmoid()
        if padding is not None:
            real = padding.real[..., None]
            decay, beta = decay * real[..., None], beta * real
        state = self.read_state((batch, value.shape[2], self.head_dim, self.head_dim), step, x.device)
        query = unit(query) * self.head_dim**-0.5
        mixed, state = gated_delta_rule(query, unit(key), value, decay, beta, state)
        self.write_state(state, step, new)
        gate = torch.sigmoid(self.g_b_proj(self.g_a_proj(x)).float())
        normed = self.o_norm(mixed.float()).flatten(2) * gate
        output: Tensor = self.o_proj(normed.to(x.dtype))
        return output
