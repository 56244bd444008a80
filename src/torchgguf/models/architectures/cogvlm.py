"""The text part of CogVLM (Wang et al. 2023, arXiv 2311.03079): a Llama with one projection in attention.

Its files contain a second set of matrices for images, which are kept, not run. transformers has no such
class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import FusedAttention
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import UndividedRope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class CogVLMConfig(DecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "cogvlm"

    rms_norm_eps: float = 1e-5


COGVLM = Architecture(
    gguf="cogvlm",
    config_class=CogVLMConfig,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        UndividedRope(),
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.FUSED_ATTENTION, *tables.GATED_MLP),
    unread=(
        "rope_freqs.weight",
        *(f"blk.{{}}.vis_attn_{part}.weight" for part in ("qkv", "output")),
        *(f"blk.{{}}.vis_{part}.weight" for part in ("gate", "up", "down")),
    ),
)


class CogVLMModel(PlainDecoderModel, architecture=COGVLM):
    """The text part of CogVLM without a head."""

    def make_attention(self, config: CogVLMConfig, layer_idx: int) -> FusedAttention:
        """Make the attention of a layer."""
        return FusedAttention(config, layer_idx)

    def make_mlp(self, config: CogVLMConfig, layer_idx: int) -> MLP:
        """Make the MLP of a layer."""
        return MLP(config)


class CogVLMForCausalLM(heads.ForCausalLM, base=CogVLMModel): ...
