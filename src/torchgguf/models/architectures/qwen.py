"""Qwen 1 (Bai et al. 2023, arXiv 2309.16609): a Llama with biases on queries, keys and values.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import FusedAttention
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Unwritable, largest_dimension

_WIDTH = "feed_forward_length"


@config_dataclass
class QwenConfig(DecoderConfig):
    """Fields of all decoders, with other defaults.

    `intermediate_size` is twice the width of MLPs, as in Qwen's own configs.
    """

    model_type = "qwen"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 8192


QWEN = Architecture(
    gguf="qwen",
    config_class=QwenConfig,
    rules=(
        *(rule for rule in tables.COMMON_RULES if rule.keys != (_WIDTH,)),
        # Twice the largest matrix may be the width of an MLP.
        Field(_WIDTH, "intermediate_size", limit=lambda header: 2 * largest_dimension(header)),
        tables.ROTATED_SIZE,
        Rope(),
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.FUSED_ATTENTION, *tables.GATED_MLP),
    states_head=True,
)


class QwenModel(PlainDecoderModel, architecture=QWEN):
    """Qwen without a head."""

    def make_attention(self, config: QwenConfig, layer_idx: int) -> FusedAttention:
        """Make the attention of a layer."""
        return FusedAttention(config, layer_idx, bias=True, output_bias=False)

    def make_mlp(self, config: QwenConfig, layer_idx: int) -> MLP:
        """Make the MLP of a layer."""
        return MLP(config, intermediate_size=config.intermediate_size // 2)


class QwenForCausalLM(heads.ForCausalLM, base=QwenModel): ...
