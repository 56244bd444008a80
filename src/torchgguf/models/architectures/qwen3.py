"""Qwen3 (Yang et al. 2025, arXiv 2505.09388): a Qwen2 that normalises queries and keys, head by head."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import LayerWindows, WindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Qwen3Config(WindowedConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "qwen3"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    num_key_value_heads: int | None = 32
    head_dim: int | None = 128
    attention_bias: bool = False


QWEN3 = Architecture(
    gguf="qwen3",
    config_class=Qwen3Config,
    rules=(
        *tables.DECODER_RULES,
        LayerWindows(),
        Unwritable("attention_bias", False),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.QK_NORMS, *tables.GATED_MLP),
    unread=("cls.output.weight",),  # of rerankers
)


class Qwen3Model(DecoderModel, architecture=QWEN3):
    """Qwen3 without a head."""

    def make_layer(self, config: Qwen3Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with norms of queries and keys."""
        window, bias = config.window_of(layer_idx), config.attention_bias
        attention = Attention(config, layer_idx, window, bias=bias, qk_norm=RMSNorm)
        return DecoderLayer(config, attention, MLP(config))


class Qwen3ForCausalLM(heads.ForCausalLM, base=Qwen3Model): ...


class Qwen3ForSequenceClassification(heads.ForSequenceClassification, base=Qwen3Model): ...


class Qwen3ForTokenClassification(heads.ForTokenClassification, base=Qwen3Model): ...


class Qwen3ForQuestionAnswering(heads.ForQuestionAnswering, base=Qwen3Model):
    base_model_prefix = "transformer"  # the name in released checkpoints
