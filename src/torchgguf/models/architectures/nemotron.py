"""Nemotron-4 and Minitron (Parmar et al. 2024, arXiv 2402.16819): norms with a mean, squared ReLU."""

from typing import Any

from torch import nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import SecondKey, Unwritable
from torchgguf.nn import UnitOffsetLayerNorm


@config_dataclass
class NemotronConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "nemotron"
    left_out = ("rms_norm_eps",)
    rotates_parts = True
    default_part = 0.5

    vocab_size: int = 256000
    hidden_size: int = 6144
    intermediate_size: int = 24576
    num_attention_heads: int = 48
    hidden_act: str = "relu2"
    max_position_embeddings: int = 4096
    initializer_range: float = 0.0134
    norm_eps: float = 1e-5
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    attention_bias: bool = False
    mlp_bias: bool = False


def _norm(config: Any) -> nn.Module:
    return UnitOffsetLayerNorm(config.hidden_size, eps=config.norm_eps)


class NemotronRope(PartialRope):
    """Rotary embedding of a part of each head; files state it even if there is no scaling."""

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, and the rotated size."""
        return {"rope.scaling.type": "none", **super().write(config)}


NEMOTRON = Architecture(
    gguf="nemotron",
    config_class=NemotronConfig,
    rules=(
        *tables.SIZE_RULES,
        NemotronRope(),
        tables.layer_norm_epsilon("norm_eps"),
        # The converter states the same number under this key, too.
        SecondKey("attention.layer_norm_rms_epsilon", "norm_eps", float),
        Unwritable("hidden_act", "relu2"),
        Unwritable("attention_bias", False),
        Unwritable("mlp_bias", False),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.PLAIN_MLP),
)


class NemotronModel(DecoderModel, architecture=NEMOTRON):
    """Nemotron without a head."""

    def make_layer(self, config: NemotronConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer; the config states whether attention and MLP use biases."""
        attention = Attention(config, layer_idx, bias=config.attention_bias)
        return DecoderLayer(config, attention, PlainMLP(config, bias=config.mlp_bias), _norm)

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return _norm(config)


class NemotronForCausalLM(heads.ForCausalLM, base=NemotronModel): ...


class NemotronForSequenceClassification(heads.ForSequenceClassification, base=NemotronModel): ...


class NemotronForTokenClassification(heads.ForTokenClassification, base=NemotronModel): ...


class NemotronForQuestionAnswering(heads.ForQuestionAnswering, base=NemotronModel):
    base_model_prefix = "transformer"  # the name in released checkpoints
