"""Gemma 2 (Gemma Team 2024, arXiv 2408.00118): norms on both sides, bounded scores and logits, windows."""

from typing import Any

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel, SandwichLayer
from torchgguf.models.blocks.gemma.unit_offset import (
    ScoreScale,
    UnitOffsetModel,
    score_scale,
    unit_offset_norm,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import LayerTypesConfig, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import NoneIfZero, Unwritable


@config_dataclass
class Gemma2Config(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every other layer, the first included, sees `sliding_window` positions.
    """

    left_out = ("hidden_act",)
    model_type = "gemma2"
    period = 2

    vocab_size: int = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: int = 256
    final_logit_softcapping: float | None = 30.0
    attn_logit_softcapping: float | None = 50.0
    use_bidirectional_attention: bool | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Name the activation as other decoders do."""
        super().__post_init__(*legacy)
        self.hidden_act = self.hidden_activation
        if self.use_bidirectional_attention:
            raise ValueError("use_bidirectional_attention=True is unsupported")


GEMMA2 = Architecture(
    gguf="gemma2",
    config_class=Gemma2Config,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        Rope(),
        LayerWindows(Gemma2Config, always_stated=True, default=4096),
        NoneIfZero("attn_logit_softcapping", "attn_logit_softcapping", float, required=False),
        NoneIfZero("final_logit_softcapping", "final_logit_softcapping", float, required=False),
        ScoreScale(layers=46),
        Unwritable("hidden_activation", "gelu_pytorch_tanh"),
        Unwritable("attention_bias", False),
    ),
    rows=(*tables.TIED_STREAM, *tables.SANDWICH_NORMS, *tables.ATTENTION, *tables.GATED_MLP),
)


class Gemma2Model(UnitOffsetModel, DecoderModel, architecture=GEMMA2):
    """Gemma 2 without a head."""

    def make_layer(self, config: Gemma2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with bounded scores."""
        attention = Attention(
            config,
            layer_idx,
            config.window_of(layer_idx),
            bias=config.attention_bias,
            scaling=score_scale(config),
            softcap=config.attn_logit_softcapping,
        )
        return SandwichLayer(config, attention, MLP(config), unit_offset_norm)


class Gemma2ForCausalLM(heads.CappedForCausalLM, base=Gemma2Model): ...


class Gemma2ForSequenceClassification(heads.ForSequenceClassification, base=Gemma2Model): ...


class Gemma2ForTokenClassification(heads.ForTokenClassification, base=Gemma2Model): ...
