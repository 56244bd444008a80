"""Positions and attention masks: causal, over a sliding window, and over padding.

Shape letters: B batch, T new positions, S positions seen including the new ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgguf.nn.cache import DynamicCache


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Which positions a query may look at.

    Either `allowed`, bool `(B or 1, 1, T, S)`; or, with `allowed` None, everything (`causal` False), or
    everything up to itself with T = S (`causal` True), which the fused kernels know without a mask.
    """

    allowed: Tensor | None
    causal: bool


def causal_mask(
    padding: Tensor | None,
    new: int,
    past: int,
    window: int | None,
    device: torch.device,
) -> AttentionMask:
    """Make the mask of one forward, to be shared by all layers with the same window.

    Args:
        padding: `(B, S)`, zero where a position is padding; None where there is none.
        new: number T of new positions.
        past: number of cached positions; S = past + new.
        window: how many positions back from itself, itself included, a query may look; None: all.
        device: where to make it.
    """
    total = past + new
    if padding is not None and bool(padding.all()):
        padding = None
    if window is not None and window >= total:
        window = None
    if padding is None and window is None and (new == 1 or past == 0):
        return AttentionMask(None, causal=new > 1)
    query = torch.arange(past, total, device=device)[:, None]
    key = torch.arange(total, device=device)
    allowed = key <= query
    if window is not None:
        allowed &= key > query - window
    if padding is None:
        return AttentionMask(allowed[None, None], causal=False)
    # Padding sees itself: a row with nothing to look at would be 0/0, and NaN spreads in gradients.
    return AttentionMask(allowed & (padding.bool()[:, None, None] | (key == query)), causal=False)


def next_positions(cache: DynamicCache | None, new: int, device: torch.device) -> Tensor:
    """Return the positions `(1, T)` of `new` tokens that follow those in the cache."""
    past = 0 if cache is None else cache.get_seq_length()
    return torch.arange(past, past + new, device=device)[None]


def attention_masks(
    windows: Iterable[int | None],
    attention_mask: Tensor | None,
    inputs_embeds: Tensor,
    cache: DynamicCache | None,
) -> dict[int | None, AttentionMask]:
    """Make the masks of one forward, one for each window size that any layer has.

    Args:
        windows: the layers' windows, as in `causal_mask`.
        attention_mask: `(B, S)`, zero where a position, cached ones included, is padding; or None.
        inputs_embeds: what goes into the first layer, `(B, T, hidden_size)`.
        cache: what the layers will be given.

    Raises:
        ValueError: `attention_mask` has another shape.
    """
    batch, new, _ = inputs_embeds.shape
    device = inputs_embeds.device
    past = 0 if cache is None else cache.get_seq_length()
    if attention_mask is not None and attention_mask.shape != (batch, past + new):
        actual, expected = tuple(attention_mask.shape), (batch, past + new)
        raise ValueError(f"attention_mask has shape {actual}, expected {expected}: the cache counts too")
    padding = None if attention_mask is None else attention_mask.to(device)
    return {window: causal_mask(padding, new, past, window, device) for window in set(windows)}
