"""Nanbeige (Nanbeige Lab 2025): Llamas with a `general.architecture` of their own.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.plain_decoder import (
    INTERLEAVED_ROWS,
    PLAIN_RULES,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Only


@config_dataclass
class NanbeigeConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "nanbeige"

    vocab_size: int = 166144
    hidden_size: int = 2560
    intermediate_size: int = 10496
    num_attention_heads: int = 20
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 65536
    rms_norm_eps: float = 1e-5


NANBEIGE = Architecture(
    gguf="nanbeige",
    config_class=NanbeigeConfig,
    rules=(
        *PLAIN_RULES,
        NO_WINDOW,
        Only("num_loops", 1, "layers that run several times are unsupported"),
        Harmless(("skip_loop_final_norm",)),
    ),
    rows=INTERLEAVED_ROWS,
)


class NanbeigeModel(PlainDecoderModel, architecture=NANBEIGE):
    """Nanbeige without a head."""


class NanbeigeForCausalLM(heads.ForCausalLM, base=NanbeigeModel): ...
