"""Parts of Gemma's models: norms with a unit offset, scaled embeddings, the scale of their scores."""

import math
from typing import Any

from torch import nn

from torchgguf.models.core.config_map import Header, Rule
from torchgguf.nn import UnitOffsetRMSNorm


def unit_offset_norm(config: Any) -> nn.Module:
    """Create a norm of the stream: a `NormOfStream`."""
    return UnitOffsetRMSNorm(config.hidden_size, eps=config.rms_norm_eps)


def score_scale(config: Any) -> float:
    """Return the factor on scores."""
    stated: int = config.query_pre_attn_scalar
    if stated < 1:
        raise ValueError(f"query_pre_attn_scalar must be at least 1, got {stated}")
    return float(stated**-0.5)


class UnitOffsetModel:
    """Mixin of `DecoderModel`: embeddings times the root of their size, a last norm with a unit offset."""

    def embedding_scale(self, config: Any) -> float:
        """Return the factor on embedded tokens."""
        return math.sqrt(config.hidden_size)

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return unit_offset_norm(config)


class ScoreScale(Rule):
    """`query_pre_attn_scalar`, for which GGUF has no key: readers know the models in which it differs.

    It is the size of a head, but `hidden_size / num_attention_heads` in the largest model of a generation
    (`f_attention_scale` in llama.cpp).

    Args:
        layers: number of layers of that model.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers

    def _value(self, layers: int, width: int, heads: int, head_dim: int) -> int:
        return width // heads if layers == self._layers else head_dim

    def read(self, header: Header) -> dict[str, Any]:
        """Return the value for the sizes in the file."""
        width, heads = (header.positive(key, int) for key in ("embedding_length", "attention.head_count"))
        head_dim = header.get("attention.key_length", width // heads)
        return {"query_pre_attn_scalar": self._value(header.get("block_count", 0), width, heads, head_dim)}

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse every other value."""
        expected = self._value(
            config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.head_dim
        )
        if config.query_pre_attn_scalar != expected:
            raise ValueError(
                f"GGUF does not support query_pre_attn_scalar={config.query_pre_attn_scalar}: "
                f"readers assume {expected}"
            )
        return {}
