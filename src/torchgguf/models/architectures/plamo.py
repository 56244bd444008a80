"""PLaMo-13B (Preferred Networks 2023): attention and MLP side by side.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.decoder import ParallelLayer
from torchgguf.models.blocks.plain_decoder import PLAIN_RULES, PlainDecoderConfig, PlainDecoderModel
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.weight_map import Row


@config_dataclass
class PlamoConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "plamo"

    vocab_size: int = 50432
    hidden_size: int = 5120
    intermediate_size: int = 13824
    num_hidden_layers: int = 40
    num_attention_heads: int = 40
    num_key_value_heads: int | None = 5
    max_position_embeddings: int = 4096


PLAMO = Architecture(
    gguf="plamo",
    config_class=PlamoConfig,
    rules=(*PLAIN_RULES, NO_WINDOW),
    rows=(
        *tables.STREAM,
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        *tables.ATTENTION,
        *tables.GATED_MLP,
    ),
    states_head=True,
)


class PlamoModel(PlainDecoderModel, architecture=PLAMO):
    """PLaMo without a head."""

    def make_layer(self, config: PlamoConfig, layer_idx: int) -> ParallelLayer:
        """Make a layer whose attention and MLP have the same input."""
        attention, mlp = self.make_attention(config, layer_idx), self.make_mlp(config, layer_idx)
        return ParallelLayer(config, attention, mlp)


class PlamoForCausalLM(heads.ForCausalLM, base=PlamoModel): ...
