"""Decoders that see texts in both directions: models that fill in masked tokens, in any order."""

from collections.abc import Mapping

from torch import Tensor

from torchgguf.models.blocks import tables
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.core.config_map import Constant
from torchgguf.nn import AttentionMask, Cache, bidirectional_mask

_CAUSAL = "attention.causal"

# Rules of all decoders, but for the direction of attention.
BIDIRECTIONAL_RULES = (
    *(rule for rule in tables.DECODER_RULES if _CAUSAL not in rule.keys),
    Constant(_CAUSAL, False, "this model sees texts in both directions"),
)


class BidirectionalModel(PlainDecoderModel):
    """A decoder whose positions see all others."""

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create the mask of padding.

        Raises:
            ValueError: the cache holds positions, which would not see the new ones.
        """
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError("a model that sees texts in both directions does not support a cache")
        return {None: bidirectional_mask(attention_mask, x)}
