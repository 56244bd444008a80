"""GLM-4 of 2024 and GLM-Edge (Zhipu AI, arXiv 2406.12793): a rotation of neighbours in half of each head."""

from typing import Any

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import FusedMLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Implied, Rule, Unwritable
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import rotate_neighbours


@config_dataclass
class GlmConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "glm"
    rotates_parts = True
    default_part = 0.5

    vocab_size: int = 151552
    intermediate_size: int = 13696
    num_hidden_layers: int = 40
    num_key_value_heads: int | None = 2
    head_dim: int | None = 128
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1.5625e-7
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = 151329
    attention_bias: bool = True

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in the tokens that end a text."""
        super().__post_init__(*legacy)
        if self.eos_token_id is None:
            self.eos_token_id = [151329, 151336, 151338]


class HeadOfEqualPart(Rule):
    """Files do not state the size of a head if all heads together are as wide as the model."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the size of a head, unless a key states it."""
        if "attention.key_length" in header.values:
            return {}
        width, count = (header.positive(key, int) for key in ("embedding_length", "attention.head_count"))
        return {"head_dim": width // count}


GLM = Architecture(
    gguf="chatglm",
    config_class=GlmConfig,
    rules=(
        *tables.COMMON_RULES,
        HeadOfEqualPart(),
        PartialRope(),
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
        Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        Row("blk.{}.ffn_up", "layers.{}.mlp.gate_up_proj"),
        *tables.MLP_OUTPUT,
    ),
)


class GlmModel(DecoderModel, architecture=GLM):
    """GLM without a head."""

    def make_layer(self, config: GlmConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer."""
        bias = config.attention_bias
        attention = Attention(config, layer_idx, bias=bias, output_bias=False, rotate=rotate_neighbours)
        return DecoderLayer(config, attention, FusedMLP(config))


class GlmForCausalLM(heads.ForCausalLM, base=GlmModel): ...


class GlmForSequenceClassification(heads.ForSequenceClassification, base=GlmModel): ...


class GlmForTokenClassification(heads.ForTokenClassification, base=GlmModel): ...
