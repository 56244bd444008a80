"""Scaled dot-product attention with grouped queries.

Shape letters: B batch, T new positions, S positions seen including the new ones, H query heads,
K key/value heads (H is a multiple of K), D head size.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.nn.flash import flash_attention
from torchgguf.nn.masks import AttentionMask

# Scores that `score_in_parts` computes at a time: 64 MB in float32.
_SCORES = 1 << 24

# (query (B, H, T, D), key and value (B, K, S, D), mask, scaling, dropout); values may have another D
# -> (output (B, H, T, D), probabilities (B, H, T, S) or None)
# Query and key may be of a wider dtype than the value: scores are then made in it, all else as the value.
AttentionFunction = Callable[
    [Tensor, Tensor, Tensor, AttentionMask, float, float], tuple[Tensor, Tensor | None]
]


def sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scaling: float, dropout: float
) -> tuple[Tensor, None]:
    """Attend by torch's fused kernels; probabilities are never made."""
    if (dtype := value.dtype) is not query.dtype:  # the kernels take one
        output, _ = sdpa_attention(query, key, value.to(query.dtype), mask, scaling, dropout)
        return output.to(dtype), None
    (batch, heads, new, dim), kv_heads = query.shape, key.shape[1]
    if heads == kv_heads or new > 1 or mask.bias is not None:
        output = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask.allowed if mask.bias is None else mask.bias,
            dropout_p=dropout,
            is_causal=mask.causal,
            scale=scaling,
            enable_gqa=heads != kv_heads,
        )
        return output, None
    # While decoding, a group's queries look at the same keys: as T of one head they need no copies.
    groups = query.reshape(batch, kv_heads, heads // kv_heads, dim)
    output = F.scaled_dot_product_attention(
        groups, key, value, attn_mask=mask.allowed, dropout_p=dropout, scale=scaling
    )
    return output.reshape(batch, heads, new, -1), None


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scaling: float, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attend step by step, softmax in float32 or wider; returns the probabilities too."""
    return score_and_mix(query, key, value, mask, scaling, dropout)


def score_and_mix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    scaling: float,
    dropout: float,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend step by step, with what fused kernels do not offer.

    Args:
        query: `(B, H, T, D)`.
        key: `(B, K, S, D)`.
        value: as `key`.
        mask: positions that a query sees.
        scaling: factor on the scores.
        dropout: probability of dropping a weight.
        softcap: bound of the scores: each becomes `softcap * tanh(score / softcap)`.
        sinks: one more score for each head, `(H,)`, of a position without a value.

    Returns:
        Weighted means `(B, H, T, D)`, and probabilities `(B, H, T, S)`.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # Not -inf: where a query has nothing to look at, that would be 0/0, and NaN spreads in gradients.
    lowest = torch.finfo(scores.dtype).min
    allowed = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril() if mask.causal else mask.allowed
    if allowed is not None:
        scores = scores + scores.new_zeros(allowed.shape).masked_fill(~allowed, lowest)
    if mask.bias is not None:
        scores = scores + mask.bias.to(scores.dtype).clamp(min=lowest)
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, column), dim=-1)
    probabilities = F.softmax(scores, dim=-1).to(value.dtype)[..., : key.shape[2]]
    return F.dropout(probabilities, dropout) @ value, probabilities


def score_in_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    scaling: float,
    dropout: float,
    **extras: Any,
) -> Tensor:
    """Return the weighted means of `score_and_mix`, some queries at a time: not all scores are in memory."""
    batch, heads, new, _ = query.shape
    keys = key.shape[2]
    size = max(1, _SCORES // (batch * heads * keys))
    if size >= new:
        return score_and_mix(query, key, value, mask, scaling, dropout, **extras)[0]
    parts = []
    for first in range(0, new, size):
        last = min(first + size, new)
        part = mask.of_queries(first, last, keys, query.device)
        parts.append(score_and_mix(query[:, :, first:last], key, value, part, scaling, dropout, **extras)[0])
    return torch.cat(parts, dim=2)


ATTENTION_FUNCTIONS: dict[str, AttentionFunction] = {
    "sdpa": sdpa_attention,
    "eager": eager_attention,
    "flash_attention_2": flash_attention,
}
# What an implementation needs beyond torch: the name to import, the name to install.
_PACKAGES = {"flash_attention_2": ("flash_attn", "flash-attn")}


def check_attention(name: str) -> None:
    """Refuse a name that is not in `ATTENTION_FUNCTIONS`, or whose package is not installed.

    Raises:
        ValueError: the name is unknown; the message lists those in `ATTENTION_FUNCTIONS`.
        ImportError: the package that it needs is not installed.
    """
    if name not in ATTENTION_FUNCTIONS:
        raise ValueError(
            f"attn_implementation={name!r} is unknown; these are: {', '.join(ATTENTION_FUNCTIONS)}"
        )
    needed = _PACKAGES.get(name)
    if needed is not None and find_spec(needed[0]) is None:
        raise ImportError(
            f"attn_implementation={name!r} needs a GPU and the package {needed[1]}: "
            f"pip install {needed[1]} --no-build-isolation (or choose 'sdpa')"
        )
