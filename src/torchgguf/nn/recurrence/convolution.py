"""A causal convolution of each channel with its own kernel.

Shape letters: B batch, C channels, T new positions, K size of the kernel.
"""

import torch.nn.functional as F
from torch import Tensor


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel along the text.

    Args:
        x: the K - 1 positions before the new ones, and the new ones, `(B, C, K - 1 + T)`.
        weight: `(C, K)`; the last column belongs to the position itself.
        bias: `(C,)`.

    Returns:
        The new positions, `(B, C, T)`.
    """
    return F.conv1d(
        x, weight[:, None].to(x.dtype), None if bias is None else bias.to(x.dtype), groups=len(weight)
    )
