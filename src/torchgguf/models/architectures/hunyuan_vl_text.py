"""The text part of HunyuanOCR (Tencent 2025, arXiv 2511.19575): a dense Hunyuan.

transformers has only the whole model, with images. Here are texts; parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import AttentionNormingRotated
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
class HunYuanVLTextConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "hunyuan_vl_text"

    vocab_size: int = 290943
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = True


HUNYUAN_VL_TEXT = Architecture(
    gguf="hunyuan_vl",
    config_class=HunYuanVLTextConfig,
    rules=(
        *tables.COMMON_RULES,
        *BIAS_RULES,
        ContiguousSectionsRope(),
        Unwritable("hidden_act", "silu"),
    ),
    rows=(*PLAIN_ROWS, *tables.QK_NORMS),
)


class HunYuanVLTextModel(PlainDecoderModel, architecture=HUNYUAN_VL_TEXT):
    """The text part of HunyuanOCR, without a head."""

    def make_attention(self, config: HunYuanVLTextConfig, layer_idx: int) -> AttentionNormingRotated:
        """Make attention with norms of queries and keys after their rotation."""
        bias, output_bias = config.attention_bias, config.attention_out_bias
        return AttentionNormingRotated(config, layer_idx, bias=bias, output_bias=output_bias)


class HunYuanVLTextForCausalLM(heads.ForCausalLM, base=HunYuanVLTextModel): ...
