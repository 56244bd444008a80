"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv 2407.10671)."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import LayerWindows, WindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class Qwen2Config(WindowedConfig):
    """The fields of decoders with windows, and other defaults."""

    model_type = "qwen2"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    num_key_value_heads: int | None = 32


QWEN2 = Architecture(
    gguf="qwen2",
    config_class=Qwen2Config,
    rules=(*tables.DECODER_RULES, LayerWindows()),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.GATED_MLP),
)


class Qwen2Model(DecoderModel, architecture=QWEN2):
    """Qwen2 without a head."""

    def make_layer(self, config: Qwen2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with biases in the projections of queries, keys and values."""
        window = config.window_of(layer_idx)
        attention = Attention(config, layer_idx, window, bias=True, output_bias=False)
        return DecoderLayer(config, attention, MLP(config))


class Qwen2ForCausalLM(heads.ForCausalLM, base=Qwen2Model): ...


class Qwen2ForSequenceClassification(heads.ForSequenceClassification, base=Qwen2Model): ...


class Qwen2ForTokenClassification(heads.ForTokenClassification, base=Qwen2Model): ...


class Qwen2ForQuestionAnswering(heads.ForQuestionAnswering, base=Qwen2Model):
    base_model_prefix = "transformer"  # the name in released checkpoints
