"""A causal convolution of each channel with its own kernel, in torch.

It is a sum of K products, which beats torch's convolutions of groups by far.

Shape letters: B batch, C channels, T new positions, K size of the kernel.
"""

import torch
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute what `torchgguf.nn.causal_convolution` documents."""
    size = weight.shape[1]
    new = x.shape[2] - size + 1
    columns = weight.to(x.dtype)[..., None]
    output = x[..., :new] * columns[:, 0]
    if bias is not None:
        output = output + bias.to(x.dtype)[:, None]
    for k in range(1, size):
        output = output + x[..., k : k + new] * columns[:, k]
    return output.contiguous()


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a kernel `(C, K)` from that of the output `(B, C, T)` and `x` of the forward."""
    new = grad.shape[2]
    windows = (x[..., k : k + new] for k in range(x.shape[2] - new + 1))
    return torch.stack([(grad * window).sum((0, 2)) for window in windows], dim=1)
