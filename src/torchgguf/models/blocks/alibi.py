"""Decoders with linear biases on scores (ALiBi) in place of rotary embedding."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.nn import AttentionMask, Cache, Rotation, alibi_mask, alibi_slopes


class AlibiModel(PlainDecoderModel):
    """A decoder whose scores fall with the distance, which depends on `attention_mask` only."""

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.slopes = self.make_slopes(config)  # no buffer: it must not be rounded

    def make_slopes(self, config: Any) -> Tensor | None:
        """Return by how much a score falls with each position, by heads; None: scores do not fall."""
        return alibi_slopes(config.num_attention_heads)

    def rotation(self, config: Any) -> str | None:
        """Return the kind of rotation of queries and keys; None: they are not rotated."""
        return None

    def make_attention(self, config: Any, layer_idx: int) -> Attention:
        """Make the attention of a layer."""
        bias, output_bias = config.attention_bias, config.attention_out_bias
        rotation = self.rotation(config)
        return Attention(config, layer_idx, bias=bias, output_bias=output_bias, rotation=rotation)

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the new positions, if there is a rotation."""
        return {} if self.rotation(self.config) is None else super().make_rotations(position_ids, dtype)

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create one mask, with the biases of all heads if there are any."""
        if self.slopes is None:
            return super().make_masks(attention_mask, x, cache)
        self.slopes = self.slopes.to(x.device)
        return {None: alibi_mask(self.slopes, attention_mask, x, cache)}
