"""EXAONE 3 and 3.5 (LG AI 2024, arXiv 2412.04862): Llamas with a `general.architecture` of their own.

transformers loads them as Llamas; their checkpoints name weights otherwise, so models come from GGUF files.
"""

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.plain_decoder import (
    PLAIN_ROWS,
    PLAIN_RULES,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class ExaoneConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "exaone"
    default_theta = 500000.0

    vocab_size: int = 102400
    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 361
    pad_token_id: int | None = 0


EXAONE = Architecture(
    gguf="exaone",
    config_class=ExaoneConfig,
    rules=(*PLAIN_RULES, NO_WINDOW),
    rows=PLAIN_ROWS,
)


class ExaoneModel(PlainDecoderModel, architecture=EXAONE):
    """EXAONE without a head."""


class ExaoneForCausalLM(heads.ForCausalLM, base=ExaoneModel): ...
