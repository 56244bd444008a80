"""A causal convolution of each channel with its own kernel.

Shape letters: B batch, C channels, T new positions, K size of the kernel.
"""

import torch
from torch import Tensor

from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel along the text.

    Args:
        x: the K - 1 positions before the new ones, and the new ones, `(B, C, K - 1 + T)`.
        weight: `(C, K)`; the last column belongs to the position itself.
        bias: `(C,)`.

    Returns:
        The new positions, `(B, C, T)`.
    """
    result: Tensor = torch.ops.torchgguf.causal_convolution(x, weight, bias)
    return result
