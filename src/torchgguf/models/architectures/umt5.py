"""The encoder of UMT5 (Chung et al. 2023, arXiv 2304.09151): a T5 whose layers have biases of their own."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torchgguf.models.architectures.t5 import (
    OF_WHOLE_MODELS,
    T5_ROWS,
    T5_RULES,
    T5Attention,
    T5Config,
    T5EncoderModel,
    biased,
)
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.nn import AttentionMask, Cache, bidirectional_mask


@config_dataclass
class UMT5Config(T5Config):
    """Other defaults than T5's."""

    model_type = "umt5"

    vocab_size: int = 250112
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    feed_forward_proj: str = "gated-gelu"
    decoder_start_token_id: int | None = 0


UMT5 = Architecture(
    gguf="t5encoder",
    config_class=UMT5Config,
    rules=T5_RULES,
    rows=T5_ROWS,
    marker="enc.blk.1.attn_rel_b.weight",
    unused=OF_WHOLE_MODELS,
)


class UMT5Attention(T5Attention):
    """Attention with biases of its own."""

    def compare(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Return weighted means of values `(B, H, T, D)`, and the probabilities or None."""
        mask = biased(step.masks[None], self.relative_attention_bias(query.shape[2]).to(query))
        return step.attend(query, key, value, mask, self.scaling, self.dropout if self.training else 0.0)


class UMT5EncoderModel(T5EncoderModel, architecture=UMT5):
    """The encoder. It has no cache: every position sees all others."""

    def make_attention(self, config: Any, layer_idx: int) -> UMT5Attention:
        """Make the attention of a layer."""
        return UMT5Attention(config, layer_idx, has_biases=True)

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create the mask of padding, to which each layer adds its biases."""
        return {None: bidirectional_mask(attention_mask, x)}
