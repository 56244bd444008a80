"""The text part of Qwen2-VL and Qwen2.5-VL (Wang et al. 2024, arXiv 2409.12191): a Qwen2.

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
from torchgguf.models.core.config_map import Field, Header, Unwritable


@config_dataclass
class Qwen2VLTextConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "qwen2_vl_text"
    default_theta = 1000000.0

    vocab_size: int = 152064
    hidden_size: int = 8192
    intermediate_size: int = 29568
    num_hidden_layers: int = 80
    num_attention_heads: int = 64
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-5
    attention_bias: bool = True
    bos_token_id: int | None = 151643
    eos_token_id: int | list[int] | None = 151645


class Epsilon(Field):
    """The epsilon of norms, which llama.cpp does not read for this model: its own writer states 0."""

    def number(self, header: Header) -> float:
        """Return the number under the key."""
        return float(header.get(self.key, 0.0))


QWEN2_VL_TEXT = Architecture(
    gguf="qwen2vl",
    config_class=Qwen2VLTextConfig,
    rules=(
        *tables.SIZE_RULES,
        Epsilon("attention.layer_norm_rms_epsilon", "rms_norm_eps", float),
        *BIAS_RULES,
        ContiguousSectionsRope(),
        Unwritable("hidden_act", "silu"),
    ),
    rows=PLAIN_ROWS,
    unread=("output.bias",),
)


class Qwen2VLTextModel(PlainDecoderModel, architecture=QWEN2_VL_TEXT):
    """The text part of Qwen2-VL, without a head."""


class Qwen2VLTextForCausalLM(heads.ForCausalLM, base=Qwen2VLTextModel): ...
