"""Normalisation layers. Norms that came from a packed file stay in float32, whatever goes through them."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn.file_forms import UNIT_OFFSET, FormedLayer


class RMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x²) + eps)` (Zhang and Sennrich 2019, arXiv 1910.07467).

    The mean is computed in float32 and the quotient rounded to the input's dtype before the weight is
    applied, as transformers does, whatever the dtype of the weight; the result has the input's dtype.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., hidden_size)`."""
        weight = self.weight  # looked up once: a module needs its time
        if x.dtype is weight.dtype is torch.float32:
            return F.rms_norm(x, weight.shape, weight, self.eps)
        normed = F.rms_norm(x.float(), weight.shape, None, self.eps).to(x.dtype)
        return (weight * normed).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size and the epsilon."""
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


class GatedRMSNorm(RMSNorm):
    """An `RMSNorm` whose output the SiLU of a gate scales, in float32, and which is then rounded."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise the last dimension of `(..., hidden_size)`, and scale by a gate of the same shape."""
        return (super().forward(x) * F.silu(gate.float())).to(x.dtype)


class WideRMSNorm(RMSNorm):
    """`weight * x / sqrt(mean(x²) + eps)`, all in float32 and then rounded, as Gemma 3n and Gemma 4 do."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., hidden_size)`."""
        weight = self.weight.float()
        return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(x.dtype)


def unweighted_rms_norm(x: Tensor, eps: float) -> Tensor:
    """Return `x / sqrt(mean(x²) + eps)` over the last dimension, computed in float32 and then rounded."""
    return F.rms_norm(x.float(), x.shape[-1:], None, eps).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` (Ba et al. 2016, arXiv 1607.06450) for inputs of any dtype, which the result has.

    Where the parameters have another, everything up to the result is computed in the wider of the two.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., hidden_size)`."""
        wide = torch.promote_types(input.dtype, self.weight.dtype)
        weight, bias = self.scale().to(wide), None if self.bias is None else self.bias.to(wide)
        return F.layer_norm(input.to(wide), self.normalized_shape, weight, bias, self.eps).to(input.dtype)

    def scale(self) -> Tensor:
        """Return what it multiplies by."""
        return self.weight


class HeadwiseLayerNorm(nn.Module):
    """Norm with a mean over each head, each with weights of its own, computed in float32 and then rounded.

    Args:
        heads: number of heads H.
        head_dim: size D of a head; `weight` is `(H, D)`.
        eps: added to the variance.
    """

    def __init__(self, heads: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., H, D)`."""
        normed = F.layer_norm(x.float(), x.shape[-1:], None, None, self.eps)
        return (normed * self.weight.float()).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the sizes and the epsilon."""
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


class UnitOffset(FormedLayer):
    """Base of norms that multiply by `1 + weight`, which is what GGUF files contain."""

    file_forms: ClassVar = {"weight": UNIT_OFFSET}


class UnitOffsetRMSNorm(UnitOffset):
    """`(1 + weight) * x / sqrt(mean(x²) + eps)`, all in float32 and then rounded, as Gemma's models do."""

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., hidden_size)`."""
        scale = self.weight.float() + 1.0
        return F.rms_norm(x.float(), scale.shape, scale, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size and the epsilon."""
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


class UnitOffsetLayerNorm(UnitOffset, LayerNorm):
    """A `LayerNorm` that multiplies by `1 + weight`."""

    def reset_parameters(self) -> None:
        """Set the weight and the bias to 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def scale(self) -> Tensor:
        """Return what it multiplies by."""
        return self.weight + 1.0
