"""Jais (Sengupta et al. 2023, arXiv 2308.16149): a GPT-2 with linear biases (ALiBi) and gated MLPs.

Its scores are divided by the size of a head, not by the root of it. transformers has no such class: models
come from GGUF files only, and parameters have Llama's names.
"""

from torch import nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.alibi import AlibiModel
from torchgguf.models.blocks.attention import FusedAttention
from torchgguf.models.blocks.decoder import DecoderConfig, layer_norm
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Constant, Unwritable


@config_dataclass
class JaisConfig(DecoderConfig):
    """Fields of all decoders, and the epsilon of norms with a mean."""

    model_type = "jais"
    left_out = ("rms_norm_eps",)

    vocab_size: int = 84992
    hidden_size: int = 5120
    intermediate_size: int = 13653
    num_hidden_layers: int = 40
    num_attention_heads: int = 40
    layer_norm_eps: float = 1e-5


JAIS = Architecture(
    gguf="jais",
    config_class=JaisConfig,
    rules=(
        *tables.SIZE_RULES,
        tables.layer_norm_epsilon("layer_norm_eps"),
        NO_WINDOW,
        Constant("attention.max_alibi_bias", 8.0, "the slopes of Jais require 8.0"),
        Unwritable("hidden_act", "silu"),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.FUSED_ATTENTION, *tables.GATED_MLP),
    states_head=True,
)


class JaisModel(AlibiModel, architecture=JAIS):
    """Jais without a head."""

    def make_norm(self, config: JaisConfig) -> nn.Module:
        """Create a norm with a mean."""
        return layer_norm(config)

    def make_attention(self, config: JaisConfig, layer_idx: int) -> FusedAttention:
        """Make the attention of a layer."""
        assert config.head_dim
        return FusedAttention(config, layer_idx, bias=True, rotation=None, scaling=1 / config.head_dim)

    def make_mlp(self, config: JaisConfig, layer_idx: int) -> MLP:
        """Make the MLP of a layer."""
        return MLP(config, bias=True)


class JaisForCausalLM(heads.ForCausalLM, base=JaisModel): ...
