"""openPangu Embedded (Chen et al. 2025, arXiv 2505.22375): a Llama with biases in attention.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.plain_decoder import (
    BIAS_RULES,
    PLAIN_ROWS,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.rope_rule import UndividedRope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class PanguEmbeddedConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "pangu_embedded"

    vocab_size: int = 153376
    intermediate_size: int = 12800
    num_hidden_layers: int = 34
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-5
    attention_bias: bool = True
    attention_out_bias: bool = True


PANGU_EMBEDDED = Architecture(
    gguf="pangu-embedded",
    config_class=PanguEmbeddedConfig,
    rules=(
        *tables.COMMON_RULES,
        *BIAS_RULES,
        tables.ROTATED_SIZE,
        UndividedRope(),
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
    ),
    rows=PLAIN_ROWS,
    unread=("rope_freqs.weight",),
)


class PanguEmbeddedModel(PlainDecoderModel, architecture=PANGU_EMBEDDED):
    """openPangu Embedded without a head."""


class PanguEmbeddedForCausalLM(heads.ForCausalLM, base=PanguEmbeddedModel): ...
