"""Seed-OSS (ByteDance Seed 2025): a Llama with biases of queries, keys and values, and dropout."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import (
    DecoderConfig,
    DecoderLayer,
    DecoderModel,
    DroppedResidualLayer,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Implied
from torchgguf.models.core.weight_map import Row


@config_dataclass
class SeedOssConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "seed_oss"

    vocab_size: int = 155136
    intermediate_size: int = 27648
    num_hidden_layers: int = 64
    num_attention_heads: int = 80
    num_key_value_heads: int | None = 8
    head_dim: int | None = 128
    max_position_embeddings: int = 524288
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 1
    attention_bias: bool = True
    attention_out_bias: bool = False
    attention_dropout: float = 0.1
    residual_dropout: float = 0.1
    mlp_bias: bool = False


SEED_OSS = Architecture(
    gguf="seed_oss",
    config_class=SeedOssConfig,
    rules=(
        *tables.DECODER_RULES,
        Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
        Implied("attention_out_bias", tables.in_first_layer("attn_output.bias")),
        Implied("mlp_bias", tables.in_first_layer("ffn_gate.bias")),
    ),
    rows=(
        *tables.STREAM,
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        Row("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
        *tables.ATTENTION,
        *tables.GATED_MLP,
    ),
)


class SeedOssModel(DecoderModel, architecture=SEED_OSS):
    """Seed-OSS without a head."""

    def make_layer(self, config: SeedOssConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer; the config states its biases and its dropout."""
        bias, output_bias = config.attention_bias, config.attention_out_bias
        attention = Attention(config, layer_idx, bias=bias, output_bias=output_bias)
        return DroppedResidualLayer(config, attention, MLP(config, bias=config.mlp_bias))


class SeedOssForCausalLM(heads.ForCausalLM, base=SeedOssModel): ...


class SeedOssForSequenceClassification(heads.ForSequenceClassification, base=SeedOssModel): ...


class SeedOssForTokenClassification(heads.ForTokenClassification, base=SeedOssModel): ...


class SeedOssForQuestionAnswering(heads.ForQuestionAnswering, base=SeedOssModel):
    base_model_prefix = "transformer"  # the name in released checkpoints
