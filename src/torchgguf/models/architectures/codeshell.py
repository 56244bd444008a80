"""CodeShell (Xie et al. 2024, arXiv 2403.15747): norms with a mean, MLPs of two layers, biases everywhere.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torch import nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import FusedAttention
from torchgguf.models.blocks.decoder import DecoderConfig, layer_norm
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class CodeShellConfig(DecoderConfig):
    """Fields of all decoders, and the epsilon of norms with a mean."""

    model_type = "codeshell"
    left_out = ("rms_norm_eps",)

    vocab_size: int = 70144
    intermediate_size: int = 16384
    num_hidden_layers: int = 42
    num_key_value_heads: int | None = 8
    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5


CODESHELL = Architecture(
    gguf="codeshell",
    config_class=CodeShellConfig,
    rules=(
        *tables.SIZE_RULES,
        tables.layer_norm_epsilon("layer_norm_eps"),
        tables.ROTATED_SIZE,
        Rope(),
        NO_WINDOW,
        Unwritable("hidden_act", "gelu_new"),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.FUSED_ATTENTION, *tables.PLAIN_MLP),
    states_head=True,
)


class CodeShellModel(PlainDecoderModel, architecture=CODESHELL):
    """CodeShell without a head."""

    def make_norm(self, config: CodeShellConfig) -> nn.Module:
        """Create a norm with a mean."""
        return layer_norm(config)

    def make_attention(self, config: CodeShellConfig, layer_idx: int) -> FusedAttention:
        """Make the attention of a layer."""
        return FusedAttention(config, layer_idx, bias=True)

    def make_mlp(self, config: CodeShellConfig, layer_idx: int) -> PlainMLP:
        """Make the MLP of a layer."""
        return PlainMLP(config, bias=True)


class CodeShellForCausalLM(heads.ForCausalLM, base=CodeShellModel): ...
