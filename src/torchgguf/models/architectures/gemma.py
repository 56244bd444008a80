"""Gemma (Gemma Team 2024, arXiv 2403.08295): scaled embeddings, norms with a unit offset, GELU."""

from typing import Any

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.gemma.unit_offset import UnitOffsetModel, unit_offset_norm
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class GemmaConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "gemma"

    vocab_size: int = 256000
    hidden_size: int = 3072
    intermediate_size: int = 24576
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    head_dim: int | None = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    use_bidirectional_attention: bool | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace the activation of older configs, which means the approximation by tanh."""
        super().__post_init__(*legacy)
        if self.hidden_act == "gelu":
            self.hidden_act = "gelu_pytorch_tanh"
        if self.use_bidirectional_attention:
            raise ValueError("use_bidirectional_attention=True is unsupported")


GEMMA = Architecture(
    gguf="gemma",
    config_class=GemmaConfig,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        Rope(),
        Unwritable("hidden_act", "gelu_pytorch_tanh"),
        Unwritable("attention_bias", False),
    ),
    rows=(*tables.TIED_STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.GATED_MLP),
)


class GemmaModel(UnitOffsetModel, DecoderModel, architecture=GEMMA):
    """Gemma without a head."""

    def make_layer(self, config: GemmaConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer."""
        attention = Attention(config, layer_idx, bias=config.attention_bias)
        return DecoderLayer(config, attention, MLP(config), unit_offset_norm)


class GemmaForCausalLM(heads.ForCausalLM, base=GemmaModel): ...


class GemmaForSequenceClassification(heads.ForSequenceClassification, base=GemmaModel): ...


class GemmaForTokenClassification(heads.ForTokenClassification, base=GemmaModel): ...
