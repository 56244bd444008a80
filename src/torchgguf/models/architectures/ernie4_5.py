"""ERNIE 4.5 (Baidu 2025), dense: a Llama that rotates pairs of neighbours."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Implied
from torchgguf.nn import rotate_neighbours


@config_dataclass
class Ernie4_5Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "ernie4_5"
    default_theta = 500000.0

    vocab_size: int = 103424
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 18
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 2
    head_dim: int | None = 128
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    use_bias: bool | None = False


ERNIE4_5 = Architecture(
    gguf="ernie4_5",
    config_class=Ernie4_5Config,
    rules=(*tables.DECODER_RULES, Implied("use_bias", tables.in_first_layer("ffn_down.bias"))),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.GATED_MLP),
)


class Ernie4_5Model(DecoderModel, architecture=ERNIE4_5):
    """ERNIE 4.5 without a head."""

    def make_layer(self, config: Ernie4_5Config, layer_idx: int) -> DecoderLayer:
        """Make a layer; the config states whether it uses biases."""
        bias = bool(config.use_bias)
        attention = Attention(config, layer_idx, bias=bias, rotate=rotate_neighbours)
        return DecoderLayer(config, attention, MLP(config, bias=bias))


class Ernie4_5ForCausalLM(heads.ForCausalLM, base=Ernie4_5Model): ...
