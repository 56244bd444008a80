"""LFM2 (Liquid AI 2025, arXiv 2511.23404): short convolutions in most layers, attention in others."""

from dataclasses import InitVar
from typing import Any

from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel, NormNames
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.short_convolution import (
    CONVOLUTION,
    SHORT_CONVOLUTION_ROWS,
    SHORT_CONVOLUTION_RULES,
    ShortConvolution,
    ShortConvolutionConfig,
)
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Header, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.nn import Linear, RMSNorm


@config_dataclass
class Lfm2Config(ShortConvolutionConfig):
    """Fields beyond those of all models with short convolutions, and other defaults.

    With `block_auto_adjust_ff_dim`, the size of the MLP is two thirds of `intermediate_size`, times
    `block_ffn_dim_multiplier`, rounded up to a multiple of `block_multiple_of`.
    """

    model_type = "lfm2"

    hidden_size: int = 2560
    intermediate_size: int = 12288
    block_multiple_of: int = 256
    block_ffn_dim_multiplier: float | int | None = 1.0
    block_auto_adjust_ff_dim: bool = True
    full_attn_idxs: list[int] | None = None
    block_ff_dim: InitVar[int | None] = None
    tie_embedding: InitVar[bool | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace the fields of older configs, and check what rounds the size of the MLP."""
        *others, size, tied = legacy
        if size is not None:
            self.intermediate_size = size
        if tied is not None:
            self.tie_word_embeddings = tied
        super().__post_init__(*others)
        if self.block_multiple_of < 1:
            raise ValueError(f"block_multiple_of must be at least 1, got {self.block_multiple_of}")

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        if self.full_attn_idxs is None:
            self.full_attn_idxs = [*range(self.num_hidden_layers)]
        full = {*self.full_attn_idxs}
        return [FULL if i in full else CONVOLUTION for i in range(self.num_hidden_layers)]

    @property
    def mlp_size(self) -> int:
        """The size of the MLP, adjusted."""
        if not self.block_auto_adjust_ff_dim:
            return self.intermediate_size
        size = int(2 * self.intermediate_size / 3)
        if self.block_ffn_dim_multiplier is None:
            return size
        size = int(self.block_ffn_dim_multiplier * size)
        return -(-size // self.block_multiple_of) * self.block_multiple_of


class AdjustedSize(Field):
    """The size of the MLP, which files state as it is."""

    def read(self, header: Header) -> dict[str, Any]:
        """Read the size, which is not to be adjusted again."""
        return {**super().read(header), "block_auto_adjust_ff_dim": False}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the adjusted size."""
        return {self.key: config.mlp_size}


LFM2_RULES = (
    *tables.with_own(tables.SIZE_RULES, *SHORT_CONVOLUTION_RULES),
    Field("attention.layer_norm_rms_epsilon", "norm_eps", float),
    tables.ROTATED_SIZE,
    Rope(),
    NO_WINDOW,
    Unwritable("hidden_act", "silu"),
)

LFM2_ROWS = (
    Row("token_embd", "embed_tokens"),
    Row("token_embd_norm", "embedding_norm"),
    Row("output", HEAD),
    Row("blk.{}.attn_norm", "layers.{}.operator_norm"),
    Row("blk.{}.ffn_norm", "layers.{}.ffn_norm"),
    *tables.QKV,
    Row("blk.{}.attn_output", "layers.{}.self_attn.out_proj"),
    Row("blk.{}.attn_q_norm", "layers.{}.self_attn.q_layernorm"),
    Row("blk.{}.attn_k_norm", "layers.{}.self_attn.k_layernorm"),
    *SHORT_CONVOLUTION_ROWS,
    Row("blk.{}.ffn_gate", "layers.{}.feed_forward.w1"),
    Row("blk.{}.ffn_up", "layers.{}.feed_forward.w3"),
    Row("blk.{}.ffn_down", "layers.{}.feed_forward.w2"),
)

LFM2 = Architecture(
    gguf="lfm2",
    config_class=Lfm2Config,
    rules=tables.with_own(
        LFM2_RULES, AdjustedSize("feed_forward_length", "intermediate_size", limit=largest_dimension)
    ),
    rows=LFM2_ROWS,
)


def _norm(config: Any) -> nn.Module:
    return RMSNorm(config.hidden_size, eps=config.norm_eps)


class Lfm2Attention(Attention):
    """Attention with norms of queries and keys, by LFM2's names."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.q_layernorm = RMSNorm(self.head_dim, eps=config.norm_eps)
        self.k_layernorm = RMSNorm(self.head_dim, eps=config.norm_eps)

    def add_output(self, hidden_size: int, bias: bool) -> None:
        """Create the layer that `project_output` uses."""
        self.out_proj = Linear(self.query_size, hidden_size, bias=bias)

    def project_output(self, mixed: Tensor) -> Tensor:
        """Map weighted means of values, `(B, T, H * D)`, to `(B, T, hidden_size)`."""
        output: Tensor = self.out_proj(mixed)
        return output

    def position(self, query: Tensor, key: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Normalise queries and keys, then rotate them."""
        return super().position(self.q_layernorm(query), self.k_layernorm(key), step)


class Lfm2MLP(MLP):
    """The gated MLP, by LFM2's names."""

    layer_name = "feed_forward"
    projections = ("w1", "w3", "w2")


class Lfm2Layer(DecoderLayer):
    """A layer of attention or a short convolution, and an MLP or experts.

    Args:
        config: states the kind of each layer.
        layer_idx: the number of the layer.
        mlp: the MLP or the experts.
    """

    norm_names = NormNames("operator_norm", None, "ffn_norm", None)

    def __init__(self, config: ShortConvolutionConfig, layer_idx: int, mlp: nn.Module) -> None:
        mixer = Lfm2Attention if config.has_attention(layer_idx) else ShortConvolution
        super().__init__(config, mixer(config, layer_idx), mlp, _norm)


class Lfm2Stack(DecoderModel):
    """What models with and without experts share."""

    norm_name = "embedding_norm"

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return _norm(config)


class Lfm2Model(Lfm2Stack, architecture=LFM2):
    """LFM2 without a head."""

    def make_layer(self, config: Lfm2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer of the kind that the config states."""
        return Lfm2Layer(config, layer_idx, Lfm2MLP(config, intermediate_size=config.mlp_size))


class Lfm2ForCausalLM(heads.ForCausalLM, base=Lfm2Model): ...
