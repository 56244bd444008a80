"""Positions and attention masks: causal, over a sliding window, and over padding.

Shape letters: B batch, T new positions, S positions seen including the new ones; of a static cache, S is all
that it has room for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.nn.cache import Cache
from torchgguf.nn.tracing import is_traced


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Which positions a query may look at.

    Either `allowed`, bool `(B or 1, 1, T, S)`; or, with `allowed` None, everything (`causal` False), or
    everything up to itself with T = S (`causal` True), which the fused kernels know without a mask. Or,
    instead of both, `bias` `(B or 1, H, T, S)`, to be added to the scores of H heads: -inf where not to look.
    A query that is padding may have nothing to look at; what it gets is finite, and of no meaning.
    """

    allowed: Tensor | None
    causal: bool
    bias: Tensor | None = None

    def to(self, device: torch.device | str | int) -> "AttentionMask":
        """Return the mask on a device."""
        allowed, bias = (None if x is None else x.to(device) for x in (self.allowed, self.bias))
        return AttentionMask(allowed, self.causal, bias)

    def of_queries(self, first: int, last: int, keys: int, device: torch.device) -> "AttentionMask":
        """Return the mask of queries `first` to `last - 1`, for `keys` positions on a device."""
        if self.causal:
            queries = torch.arange(first, last, device=device)
            return AttentionMask((torch.arange(keys, device=device) <= queries[:, None])[None, None], False)
        allowed, bias = (None if x is None else x[:, :, first:last] for x in (self.allowed, self.bias))
        return AttentionMask(allowed, False, bias)


def causal_mask(
    padding: Tensor | None,
    new: int,
    past: int,
    window: int | None,
    device: torch.device,
) -> AttentionMask:
    """Make the mask of one forward, to be shared by all layers with the same window.

    Args:
        padding: `(B, S)`, zero where a position is padding; None: there is no padding.
        new: number T of new positions.
        past: number of cached positions; S = past + new.
        window: how many positions back from itself, itself included, a query may look; None: all.
        device: where to make it.
    """
    total = past + new
    # A compiled graph cannot ask what is in a tensor.
    if padding is not None and not is_traced() and bool(padding.all()):
        padding = None
    if window is not None and window >= total:
        window = None
    if padding is None and window is None and (new == 1 or past == 0):
        return AttentionMask(None, causal=True) if new > 1 else AttentionMask(None, causal=False)
    return _explicit_mask(padding, torch.arange(past, total, device=device), total, window)


def bidirectional_mask(
    attention_mask: Tensor | None, inputs_embeds: Tensor, reach: int | None = None
) -> AttentionMask:
    """Make the mask of one forward in which every position sees all others, except padding.

    Args:
        attention_mask: `(B, T)`, zero where a position is padding; or None.
        inputs_embeds: what goes into the first layer, `(B, T, hidden_size)`.
        reach: how many positions before and after itself a position sees; None: all.

    Raises:
        ValueError: `attention_mask` has another shape.
    """
    batch, length, _ = inputs_embeds.shape
    if attention_mask is not None:
        _check_shape(attention_mask, batch, length, length)
    if reach is not None:
        places = torch.arange(length, device=inputs_embeds.device)
        near = ((places[:, None] - places).abs() <= reach)[None, None]
        if attention_mask is not None:
            near = near & attention_mask.to(near.device).bool()[:, None, None]
        return AttentionMask(near, causal=False)
    if attention_mask is None:
        return AttentionMask(None, causal=False)
    if not is_traced() and bool(attention_mask.all()):
        return AttentionMask(None, causal=False)
    return AttentionMask(attention_mask.to(inputs_embeds.device).bool()[:, None, None], causal=False)


def static_mask(padding: Tensor | None, queries: Tensor, capacity: int, window: int | None) -> AttentionMask:
    """Make the mask of one forward with a static cache; only shapes, never values, decide what is done.

    Args:
        padding: `(B, up to S)`, zero where a position is padding; None: there is no padding.
        queries: the places `(T,)` of the new positions in the cache.
        capacity: number S of positions that the cache has room for.
        window: as in `causal_mask`.
    """
    if padding is not None and padding.shape[1] < capacity:
        padding = F.pad(padding, (0, capacity - padding.shape[1]), value=1)  # no query looks there yet
    return _explicit_mask(padding, queries, capacity, window)


def _explicit_mask(padding: Tensor | None, queries: Tensor, total: int, window: int | None) -> AttentionMask:
    query, key = queries[:, None], torch.arange(total, device=queries.device)
    allowed = key <= query
    if window is not None:
        allowed &= key > query - window
    if padding is None:
        return AttentionMask(allowed[None, None], causal=False)
    return AttentionMask(allowed & padding.bool()[:, None, None], causal=False)


def next_positions(cache: Cache | None, new: int, device: torch.device) -> Tensor:
    """Return the positions `(1, T)` of `new` tokens that follow those in the cache."""
    return (torch.arange(new, device=device) if cache is None else cache.positions(new, device))[None]


def new_padding(attention_mask: Tensor | None, new: int, cache: Cache | None) -> Tensor | None:
    """Return which new positions are padding: what recurrent layers and convolutions must leave out.

    Args:
        attention_mask: as in `attention_masks`.
        new: the number T of new positions.
        cache: what the layers will use.

    Returns:
        Bool `(B, T)`, or None where there is no padding.
    """
    if attention_mask is None:
        return None
    return attention_mask.index_select(1, next_positions(cache, new, attention_mask.device)[0]) == 0


def attention_masks(
    windows: Iterable[int | None],
    attention_mask: Tensor | None,
    inputs_embeds: Tensor,
    cache: Cache | None,
) -> dict[int | None, AttentionMask]:
    """Make the masks of one forward, one for each window size that any layer has.

    Args:
        windows: the layers' windows, as in `causal_mask`.
        attention_mask: `(B, S)`, zero where a position, cached ones included, is padding; or None. With a
            static cache it may be longer than what is filled, so that its shape can stay the same. (How much
            is filled a GPU is not asked.) Or bool `(B or 1, 1, T, S)`, which positions a query sees, for
            texts packed in one row; windows narrow it further.
        inputs_embeds: what goes into the first layer, `(B, T, hidden_size)`.
        cache: what the layers will use.

    Raises:
        ValueError: `attention_mask` has another shape.
    """
    batch, new, _ = inputs_embeds.shape
    device = inputs_embeds.device
    if attention_mask is not None and attention_mask.dim() == 4:
        past = None if cache is None else cache.known_length
        return _narrowed(windows, attention_mask.to(device), (batch, new), 0 if cache is None else past)
    padding = None if attention_mask is None else attention_mask.to(device)
    past = 0 if cache is None else cache.known_length
    if cache is not None and cache.capacity is not None:
        asked = padding is not None and device.type == "cpu" and not is_traced()
        filled = cache.get_seq_length() if asked else 0
        _check_shape(padding, batch, filled + new, cache.capacity)
        if past is None:
            queries = cache.positions(new, device)
            return {w: static_mask(padding, queries, cache.capacity, w) for w in set(windows)}
        padding = None if padding is None else padding[:, :new]
    assert past is not None
    _check_shape(padding, batch, past + new, past + new)
    return {w: causal_mask(padding, new, past, w, device) for w in set(windows)}


def _narrowed(
    windows: Iterable[int | None], allowed: Tensor, queries: tuple[int, int], past: int | None
) -> dict[int | None, AttentionMask]:
    """Return the masks of layers whose queries see what is allowed, within their windows."""
    batch, new = queries
    if past is None:
        raise ValueError("attention_mask must be (B, S), not four-dimensional, with a static cache")
    expected = {(rows, 1, new, past + new) for rows in (1, batch)}
    if allowed.dtype is not torch.bool or tuple(allowed.shape) not in expected:
        shape = tuple(allowed.shape)
        raise ValueError(
            f"attention_mask must be bool ({batch} or 1, 1, {new}, {past + new}), got {allowed.dtype} {shape}"
        )
    places = torch.arange(past + new, device=allowed.device)
    distances = places[past:, None] - places
    return {
        window: AttentionMask(allowed if window is None else allowed & (distances < window), causal=False)
        for window in set(windows)
    }


def _check_shape(padding: Tensor | None, batch: int, shortest: int, longest: int) -> None:
    if padding is not None and (len(padding) != batch or not shortest <= padding.shape[1] <= longest):
        actual, length = tuple(padding.shape), shortest if shortest == longest else f"{shortest} to {longest}"
        raise ValueError(
            f"attention_mask has shape {actual}, expected ({batch}, {length}): the cache counts too"
        )
