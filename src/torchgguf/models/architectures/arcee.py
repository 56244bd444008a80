"""Arcee's AFM (Arcee AI 2025): a Llama whose MLPs have two layers and squared ReLU (arXiv 2109.08668)."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class ArceeConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "arcee"

    hidden_size: int = 2560
    intermediate_size: int = 18432
    hidden_act: str = "relu2"
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 128000
    eos_token_id: int | list[int] | None = 128001
    attention_bias: bool = False
    mlp_bias: bool = False


ARCEE = Architecture(
    gguf="arcee",
    config_class=ArceeConfig,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        Rope(),
        Unwritable("hidden_act", "relu2"),
        Unwritable("attention_bias", False),
        Unwritable("mlp_bias", False),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.INTERLEAVED_ATTENTION, *tables.PLAIN_MLP),
)


class ArceeModel(DecoderModel, architecture=ARCEE):
    """AFM without a head."""

    def make_layer(self, config: ArceeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer; the config states whether attention and MLP use biases."""
        attention = Attention(config, layer_idx, bias=config.attention_bias)
        return DecoderLayer(config, attention, PlainMLP(config, bias=config.mlp_bias))


class ArceeForCausalLM(heads.ForCausalLM, base=ArceeModel): ...


class ArceeForSequenceClassification(heads.ForSequenceClassification, base=ArceeModel): ...


class ArceeForTokenClassification(heads.ForTokenClassification, base=ArceeModel): ...


class ArceeForQuestionAnswering(heads.ForQuestionAnswering, base=ArceeModel):
    base_model_prefix = "transformer"  # the name in released checkpoints
