"""A small hybrid model: layers with a convolution and a recurrent state beside attention with LongRoPE."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.generation import GenerationConfig, GenerationMixin
from torchgguf.models.blocks.outputs import CausalLMOutputWithPast
from torchgguf.nn import (
    Cache,
    Convolution,
    DynamicCache,
    KeyValues,
    Recurrent,
    RotaryEmbedding,
    attention_masks,
    new_padding,
    next_positions,
    rotate,
)
from torchgguf.nn.attention import sdpa_attention

SIZE, HEADS, HEAD, KERNEL, VOCABULARY = 32, 4, 8, 4, 50
ORIGINAL = 14  # the length of text where the frequencies change
ROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
}


class Mixer(nn.Module):
    """A causal convolution, then a decaying sum of outer products, as in linear attention."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.kernel = nn.Parameter(torch.randn(SIZE, 1, KERNEL) / 2)
        self.project = nn.Linear(SIZE, 3 * HEAD)
        self.out = nn.Linear(HEAD, SIZE)

    def forward(self, x: Tensor, padding: Tensor | None, cache: Cache | None) -> Tensor:
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)
        batch, new, _ = x.shape
        channels = x.transpose(1, 2)
        if cache is None:
            before = F.pad(channels, (KERNEL - 1, 0))
            state = x.new_zeros(batch, HEAD, HEAD)
        else:
            before = cache.state(self.layer_idx, Convolution).append(channels, KERNEL - 1)
            recurrent = cache.state(self.layer_idx, Recurrent)
            state = recurrent.read((batch, HEAD, HEAD), x.dtype, x.device)
        mixed = F.silu(F.conv1d(before, self.kernel, groups=SIZE)).transpose(1, 2)
        query, key, value = self.project(mixed).chunk(3, dim=-1)
        if padding is not None:
            key = key.masked_fill(padding[..., None], 0.0)
        outputs = []
        for i in range(new):
            state = 0.8 * state + key[:, i, :, None] * value[:, i, None, :]
            outputs.append(query[:, i, None, :] @ state)
        if cache is not None:
            recurrent.advance(state, new)
        return self.out(torch.cat(outputs, dim=1))


class Attention(nn.Module):
    """Attention with rotary embedding."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.project = nn.Linear(SIZE, 3 * SIZE)
        self.out = nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor, rotation: Any, mask: Any, cache: Cache | None) -> Tensor:
        cos, sin, lengths = rotation
        query, key, value = self.project(x).unflatten(-1, (3, HEADS, HEAD)).unbind(2)
        query, key = rotate(query, cos, sin).transpose(1, 2), rotate(key, cos, sin).transpose(1, 2)
        value = value.transpose(1, 2)
        if cache is not None:
            key, value = cache.state(self.layer_idx, KeyValues).append(key, value, lengths)
        attended, _ = sdpa_attention(query, key, value, mask, HEAD**-0.5, 0.0)
        return self.out(attended.transpose(1, 2).flatten(2))


class Hybrid(nn.Module, GenerationMixin):
    """Mixer, attention, mixer. Like every model it makes a cache, unless it is told not to."""

    config = None

    def __init__(self, layers: str = "mam") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=None)
        self.embed = nn.Embedding(VOCABULARY, SIZE)
        kinds = {"m": Mixer, "a": Attention}
        self.layers = nn.ModuleList(kinds[kind](i) for i, kind in enumerate(layers))
        self.rotary = RotaryEmbedding(ROPE, HEAD)
        self.head = nn.Linear(SIZE, VOCABULARY)
        self.requires_grad_(False).eval()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        if cache is None and use_cache:
            cache = DynamicCache()
        x = self.embed(input_ids)
        new = x.shape[1]
        if position_ids is None:
            position_ids = next_positions(cache, new, x.device)
        rotation = self.rotary(position_ids, x.dtype)
        padding = new_padding(attention_mask, new, cache)
        mask = attention_masks([None], attention_mask, x, cache)[None]
        for layer in self.layers:
            normed = F.layer_norm(x, (SIZE,))
            if isinstance(layer, Mixer):
                x = x + layer(normed, padding, cache)
            else:
                x = x + layer(normed, rotation, mask, cache)
        logits = self.head(F.layer_norm(x, (SIZE,))[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=3 * logits, cache=cache)
