"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464), and with a decay of each channel Kimi's variant.

Shape letters: B batch, T new positions, K heads of queries and keys, H heads of values (a multiple of K),
N size of keys, V size of values.
"""

import torch
from torch import Tensor


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
    repeats = value.shape[2] // key.shape[2]
    q, k = (x.to(state.dtype).repeat_interleave(repeats, dim=2) for x in (query, key))
    v, b = value.to(state.dtype), beta.to(state.dtype)
    factor = decay.to(state.dtype).exp()
    factor = factor[..., None, None] if factor.dim() == 3 else factor[..., None]
    outputs = []
    for t in range(value.shape[1]):
        state = state * factor[:, t]
        stored = (k[:, t, :, :, None] * state).sum(2)
        state = state + k[:, t, :, :, None] * (b[:, t, :, None] * (v[:, t] - stored))[:, :, None]
        outputs.append((q[:, t, :, :, None] * state).sum(2))
    return torch.stack(outputs, dim=1).to(value.dtype), state
