"""The text part of PaddleOCR-VL (Cui et al. 2025, arXiv 2510.14528): an ERNIE 4.5.

transformers has only the whole model, with images. Here are texts; parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.plain_decoder import (
    BIAS_RULES,
    PLAIN_ROWS,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.rope_rule import ContiguousSectionsRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class PaddleOCRVLTextConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "paddleocr_vl_text"
    default_theta = 500000.0

    vocab_size: int = 103424
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 18
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 2
    head_dim: int | None = 128
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = True


PADDLEOCR_VL_TEXT = Architecture(
    gguf="paddleocr",
    config_class=PaddleOCRVLTextConfig,
    rules=(
        *tables.COMMON_RULES,
        *BIAS_RULES,
        ContiguousSectionsRope(),
        Unwritable("hidden_act", "silu"),
    ),
    rows=PLAIN_ROWS,
)


class PaddleOCRVLTextModel(PlainDecoderModel, architecture=PADDLEOCR_VL_TEXT):
    """The text part of PaddleOCR-VL, without a head."""


class PaddleOCRVLTextForCausalLM(heads.ForCausalLM, base=PaddleOCRVLTextModel): ...
