"""OLMo 2 (Team OLMo 2024, arXiv 2501.00656): norms after attention and MLP, and of all queries and keys."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import AttentionNormingAllHeads
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel, PostNormLayer
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Olmo2Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "olmo2"

    vocab_size: int = 50304
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 50279
    attention_bias: bool = False


OLMO2_ROWS = (
    *tables.STREAM,
    *tables.POST_NORMS,
    *tables.ATTENTION,
    *tables.QK_NORMS,
    *tables.GATED_MLP,
)

OLMO2 = Architecture(
    gguf="olmo2",
    config_class=Olmo2Config,
    rules=(*tables.DECODER_RULES, Unwritable("attention_bias", False), NO_WINDOW),
    rows=OLMO2_ROWS,
)


class Olmo2Model(DecoderModel, architecture=OLMO2):
    """OLMo 2 without a head."""

    def make_layer(self, config: Olmo2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with norms after attention and MLP."""
        bias = config.attention_bias
        attention = AttentionNormingAllHeads(config, layer_idx, bias=bias, qk_norm=RMSNorm)
        return PostNormLayer(config, attention, MLP(config))


class Olmo2ForCausalLM(heads.ForCausalLM, base=Olmo2Model): ...


class Olmo2ForSequenceClassification(heads.ForSequenceClassification, base=Olmo2Model): ...
