"""The text part of Qwen3-VL (Bai et al. 2025, arXiv 2511.21631): a Qwen3.

transformers has only the whole model, with images. Here are texts; parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.plain_decoder import (
    BIAS_RULES,
    PLAIN_ROWS,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.rope_rule import SectionedRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Qwen3VLTextConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "qwen3_vl_text"
    default_theta = 500000.0

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    head_dim: int | None = 128
    max_position_embeddings: int = 128000


QWEN3_VL_TEXT = Architecture(
    gguf="qwen3vl",
    config_class=Qwen3VLTextConfig,
    rules=(
        *tables.COMMON_RULES,
        *BIAS_RULES,
        SectionedRope(),
        Unwritable("hidden_act", "silu"),
        Harmless(("n_deepstack_layers",)),  # layers to which states of images are added
    ),
    rows=(*PLAIN_ROWS, *tables.QK_NORMS),
    unread=("cls.output.weight",),  # of rerankers
)


class Qwen3VLTextModel(PlainDecoderModel, architecture=QWEN3_VL_TEXT):
    """The text part of Qwen3-VL, without a head."""

    def make_attention(self, config: Qwen3VLTextConfig, layer_idx: int) -> Attention:
        """Make attention with norms of queries and keys."""
        bias, output_bias = config.attention_bias, config.attention_out_bias
        return Attention(config, layer_idx, bias=bias, output_bias=output_bias, qk_norm=RMSNorm)


class Qwen3VLTextForCausalLM(heads.ForCausalLM, base=Qwen3VLTextModel): ...
