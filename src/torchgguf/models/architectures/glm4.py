"""GLM-4 of 2025 (Zhipu AI): norms on both sides, and a rotation of neighbours in half of each head."""

from typing import Any

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel, NormNames
from torchgguf.models.blocks.mlp import FusedMLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Implied, Rule, Unwritable
from torchgguf.models.core.neutral_keys import is_neutral
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import rotate, rotate_neighbours


@config_dataclass
class Glm4Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "glm4"
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
    rope_sections: list[int] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in the tokens that end a text."""
        super().__post_init__(*legacy)
        if self.eos_token_id is None:
            self.eos_token_id = [151329, 151336, 151338]


class Sections(Rule):
    """The sections of heads by which models of images, such as GLM-4.1V, rotate; None: there are none.

    In texts all have the same position, but numbers of both halves of a head are rotated together, not
    neighbours.
    """

    keys = ("rope.dimension_sections",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the sections; there are none if one of the first two is 0."""
        if not all(header.get(self.keys[0], [0])[:2]):
            return {}
        sections = header.values[self.keys[0]]
        if not is_neutral(self.keys[0], header.values, has_rotation=True):
            raise GGUFError(f"{self.keys[0]} = {brief(sections)} is unsupported: positions in texts differ")
        return {"rope_sections": sections}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the sections."""
        return {self.keys[0]: config.rope_sections} if config.rope_sections else {}


GLM4 = Architecture(
    gguf="glm4",
    config_class=Glm4Config,
    rules=(
        *tables.COMMON_RULES,
        PartialRope(),
        Sections(),
        Unwritable("hidden_act", "silu"),
        Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        Row("blk.{}.post_attention_norm", "layers.{}.post_self_attn_layernorm"),
        Row("blk.{}.post_ffw_norm", "layers.{}.post_mlp_layernorm"),
        *tables.ATTENTION,
        Row("blk.{}.ffn_up", "layers.{}.mlp.gate_up_proj"),
        *tables.MLP_OUTPUT,
    ),
)


class Glm4Layer(DecoderLayer):
    """A layer with norms before and after attention and MLP."""

    norm_names = NormNames(
        "input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"
    )


class Glm4Model(DecoderModel, architecture=GLM4):
    """GLM-4 without a head."""

    def make_layer(self, config: Glm4Config, layer_idx: int) -> DecoderLayer:
        """Make a layer."""
        pairs = rotate if config.rope_sections else rotate_neighbours
        bias = config.attention_bias
        attention = Attention(config, layer_idx, bias=bias, output_bias=False, rotate=pairs)
        return Glm4Layer(config, attention, FusedMLP(config))


class Glm4ForCausalLM(heads.ForCausalLM, base=Glm4Model): ...


class Glm4ForSequenceClassification(heads.ForSequenceClassification, base=Glm4Model): ...


class Glm4ForTokenClassification(heads.ForTokenClassification, base=Glm4Model): ...
