"""Normalisation layers. Norms that came from a packed file stay in float32, whatever goes through them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        if x.dtype is torch.float32:
            return F.rms_norm(x, weight.shape, weight, self.eps)
        normed = F.rms_norm(x.float(), weight.shape, None, self.eps).to(x.dtype)
        return (weight * normed).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size and the epsilon."""
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` (Ba et al. 2016, arXiv 1607.06450) for inputs of any dtype, which the result has.

    Where the parameters have another, everything up to the result is computed in the wider of the two.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., hidden_size)`."""
        wide = torch.promote_types(input.dtype, self.weight.dtype)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(input.to(wide), self.normalized_shape, weight, bias, self.eps).to(input.dtype)
