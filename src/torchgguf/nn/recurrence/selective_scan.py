"""The selective scan of Mamba (Gu and Dao 2023, arXiv 2312.00752).

Shape letters: B batch, T new positions, C channels, N size of a channel's state.
"""

import torch
from torch import Tensor

from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)


def selective_scan(
    x: Tensor, step_size: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Let each position decay the state of each channel, add to it, and read it.

    In a channel, s is the state `(N,)`: s <- exp(step_size * a) s + step_size * x * b; output c s. A position
    with step size 0 leaves the state as it is: that is what padding must have.

    Args:
        x: `(B, T, C)`.
        step_size: `(B, T, C)`, not negative.
        a: `(C, N)`, negative.
        b: `(B, T, N)`.
        c: `(B, T, N)`.
        state: before the new positions, `(B, C, N)`, float32 or float64.

    Returns:
        The outputs `(B, T, C)` of x's type, and the state after the new positions.
    """
    output, state = torch.ops.torchgguf.selective_scan(x, step_size, a, b, c, state)
    return output, state
