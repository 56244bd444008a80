"""XVERSE (Yuanxiang 2023): Llamas with a `general.architecture` of their own.

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


@config_dataclass
class XverseConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "xverse"

    vocab_size: int = 100534
    max_position_embeddings: int = 8192
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    pad_token_id: int | None = 1


XVERSE = Architecture(
    gguf="xverse",
    config_class=XverseConfig,
    rules=(*PLAIN_RULES, NO_WINDOW),
    rows=INTERLEAVED_ROWS,
    states_head=True,
)


class XverseModel(PlainDecoderModel, architecture=XVERSE):
    """XVERSE without a head."""


class XverseForCausalLM(heads.ForCausalLM, base=XverseModel): ...
