"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464), and with a decay of each channel Kimi's variant.

Shape letters: B batch, T new positions, K heads of queries and keys, H heads of values (a multiple of K),
N size of keys, V size of values.
"""

import torch
from torch import Tensor

from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)


def gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Let each position decay the state, correct what it stores under the key, and read it by the query.

    In a head, S is the state `(N, V)`: S <- exp(decay) S; S <- S + beta k (v - k S); output q S. A position
    with decay 0 and beta 0 leaves the state as it is: that is what padding must have.

    Args:
        query: `(B, T, K, N)`, normalized and scaled.
        key: `(B, T, K, N)`, normalized.
        value: `(B, T, H, V)`; its head h uses the head h // (H / K) of queries and keys.
        decay: logarithm of the factor on the state, `(B, T, H)`, or `(B, T, H, N)` for each channel of keys.
        beta: strength of the correction, `(B, T, H)`.
        state: before the new positions, `(B, H, N, V)`, float32 or float64.

    Returns:
        The outputs `(B, T, H, V)` of value's type, and the state after the new positions.
    """
    output, state = torch.ops.torchgguf.gated_delta_rule(query, key, value, decay, beta, state)
    return output, state
