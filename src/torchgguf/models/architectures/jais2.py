"""Jais 2 (Inception 2025): norms with a mean, MLPs of two layers with squared ReLU, biases everywhere."""

from torch import nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, layer_norm
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class Jais2Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "jais2"
    left_out = ("rms_norm_eps",)

    vocab_size: int = 150272
    hidden_size: int = 3328
    intermediate_size: int = 26624
    num_attention_heads: int = 26
    hidden_act: str = "relu2"
    max_position_embeddings: int = 8192
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 150024
    attention_bias: bool = True
    mlp_bias: bool = True
    layer_norm_eps: float = 1e-5


JAIS2 = Architecture(
    gguf="jais2",
    config_class=Jais2Config,
    rules=(
        *tables.SIZE_RULES,
        tables.layer_norm_epsilon("layer_norm_eps"),
        tables.ROTATED_SIZE,
        Rope(),
        NO_WINDOW,
        Unwritable("hidden_act", "relu2"),
        Unwritable("attention_bias", True),
        Unwritable("mlp_bias", True),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.PLAIN_MLP),
)


class Jais2Model(PlainDecoderModel, architecture=JAIS2):
    """Jais 2 without a head."""

    def make_norm(self, config: Jais2Config) -> nn.Module:
        """Create a norm with a mean."""
        return layer_norm(config)

    def make_attention(self, config: Jais2Config, layer_idx: int) -> Attention:
        """Make the attention of a layer."""
        return Attention(config, layer_idx, bias=config.attention_bias)

    def make_mlp(self, config: Jais2Config, layer_idx: int) -> PlainMLP:
        """Make the MLP of a layer."""
        return PlainMLP(config, bias=config.mlp_bias)


class Jais2ForCausalLM(heads.ForCausalLM, base=Jais2Model): ...
