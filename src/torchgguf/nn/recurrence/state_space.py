"""The state-space recurrence of Mamba 2 (Dao and Gu 2024, arXiv 2405.21060).

Shape letters: B batch, T new positions, H heads, P size of a head, G groups (H is a multiple), N size of the
state.
"""

import torch
from torch import Tensor

from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)


def state_space_scan(
    x: Tensor, step_size: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Let each position decay the state of each head, add to it, and read it.

    In a head, S is the state `(P, N)`: S <- exp(step_size * a) S + step_size * x b; output S c. A position
    with step size 0 leaves the state as it is: that is what padding must have.

    Args:
        x: `(B, T, H, P)`.
        step_size: `(B, T, H)`, not negative.
        a: `(H,)`, negative.
        b: `(B, T, G, N)`; head h reads the group h // (H / G).
        c: `(B, T, G, N)`.
        state: before the new positions, `(B, H, P, N)`, float32 or float64.

    Returns:
        The outputs `(B, T, H, P)` of x's type, and the state after the new positions.
    """
    output, state = torch.ops.torchgguf.state_space_scan(x, step_size, a, b, c, state)
    return output, state
