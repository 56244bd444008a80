"""Attention with linear biases (Press et al. 2021, arXiv 2108.12409): no positions, but scores that fall with
the distance, in each head by another slope.

Shape letters: B batch, H heads, T new positions, S positions seen including the new ones; of a static cache,
S is all that it has room for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.nn.cache import Cache
from torchgguf.nn.masks import AttentionMask, attention_masks, next_positions


def alibi_slopes(heads: int) -> Tensor:
    """Return by how much a score falls with each position, `(H,)` float32.

    They are a geometric sequence that ends in 2 ** -8 if the heads are a power of two; heads beyond one use
    every other slope of the sequence for twice as many (as in the paper's code, and in ggml's soft_max).
    """

    def sequence(length: int) -> Tensor:
        # Always on the CPU: a model's skeleton is built under the meta device, its slopes are not.
        exponents = torch.arange(1, length + 1, dtype=torch.float32, device="cpu")
        return torch.pow(2.0, -8 / length * exponents)

    whole = 1 << (heads.bit_length() - 1)
    return torch.cat((sequence(whole), sequence(2 * whole)[::2][: heads - whole]))


def alibi_mask(
    slopes: Tensor, attention_mask: Tensor | None, inputs_embeds: Tensor, cache: Cache | None
) -> AttentionMask:
    """Make the mask of one forward, to be shared by all layers: causal, with the biases of every head.

    Distances count real positions only, those in between that are padding left out. Biases are those of the
    paper, not shifted by a number for each query: distances are small where scores are large, so that halves
    round little.

    Args:
        slopes: `(H,)`, as `alibi_slopes` returns them.
        attention_mask: as in `attention_masks`, zero at padding.
        inputs_embeds: what goes into the first layer, `(B, T, hidden_size)`.
        cache: what the layers will use.

    Raises:
        ValueError: `attention_mask` has another shape.
    """
    mask = attention_masks([None], attention_mask, inputs_embeds, cache)[None]
    new, device = inputs_embeds.shape[1], inputs_embeds.device
    queries = next_positions(cache, new, device)
    if mask.allowed is not None:
        total = mask.allowed.shape[3]
    else:
        total = new if mask.causal or cache is None else cache.get_seq_length() + new
    keys = torch.arange(total, device=device)[None]
    if attention_mask is not None and attention_mask.dim() == 2:
        counted = attention_mask.to(device)[:, :total].cumsum(1) - 1
        keys = F.pad(counted, (0, total - counted.shape[1])) if counted.shape[1] < total else counted
        queries = keys.index_select(1, queries[0])
    distances = keys[:, None, None, :] - queries[:, None, :, None]
    hidden = distances > 0 if mask.allowed is None else ~mask.allowed
    bias = (slopes.to(device)[:, None, None] * distances).to(inputs_embeds.dtype)
    return AttentionMask(None, False, bias.masked_fill(hidden, -torch.inf))
