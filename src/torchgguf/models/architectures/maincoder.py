"""Maincoder (Maincode 2025): a Llama that normalises queries and keys after it rotated them.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import AttentionNormingRotated
from torchgguf.models.blocks.plain_decoder import (
    INTERLEAVED_ROWS,
    PLAIN_RULES,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class MaincoderConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "maincoder"

    vocab_size: int = 151936
    hidden_size: int = 1536
    intermediate_size: int = 4096
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    rms_norm_eps: float = 1e-5


MAINCODER = Architecture(
    gguf="maincoder",
    config_class=MaincoderConfig,
    rules=(*PLAIN_RULES, NO_WINDOW),
    rows=(*INTERLEAVED_ROWS, *tables.INTERLEAVED_QK_NORMS),
)


class MaincoderModel(PlainDecoderModel, architecture=MAINCODER):
    """Maincoder without a head."""

    def make_attention(self, config: MaincoderConfig, layer_idx: int) -> AttentionNormingRotated:
        """Make the attention of a layer."""
        bias, output_bias = config.attention_bias, config.attention_out_bias
        return AttentionNormingRotated(config, layer_idx, bias=bias, output_bias=output_bias)


class MaincoderForCausalLM(heads.ForCausalLM, base=MaincoderModel): ...
