"""Command R (Cohere 2024): attention and MLP side by side, norms with a mean and without a bias."""

from functools import partial
from typing import Any

from torch import Tensor

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import (
    DecoderConfig,
    DecoderLayer,
    DecoderModel,
    ParallelLayer,
    layer_norm,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Implied, Unwritable
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import HeadwiseLayerNorm, rotate_neighbours

cohere_norm = partial(layer_norm, bias=False)


@config_dataclass
class CohereConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "cohere"
    left_out = ("rms_norm_eps",)
    default_theta = 500000.0

    vocab_size: int = 256000
    hidden_size: int = 8192
    intermediate_size: int = 22528
    logit_scale: float = 0.0625
    num_hidden_layers: int = 40
    num_attention_heads: int = 64
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 5
    eos_token_id: int | list[int] | None = 255001
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    use_qk_norm: bool | None = False


class CohereRope(Rope):
    """Rotary embedding; files always state that there is no scaling."""

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding."""
        return {"rope.scaling.type": "none", **super().write(config)}


COHERE_RULES = (
    *tables.SIZE_RULES,
    CohereRope(),
    tables.layer_norm_epsilon("layer_norm_eps"),
    Field("logit_scale", "logit_scale", float),
    Unwritable("hidden_act", "silu"),
    Unwritable("attention_bias", False),
)
COHERE_ROWS = (
    *tables.TIED_STREAM,
    Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
    *tables.ATTENTION,
    *tables.GATED_MLP,
)

COHERE = Architecture(
    gguf="command-r",
    config_class=CohereConfig,
    rules=(
        *COHERE_RULES,
        tables.ROTATED_SIZE,
        Implied("use_qk_norm", tables.in_first_layer("attn_q_norm.weight")),
    ),
    rows=(*COHERE_ROWS, *tables.QK_NORMS),
)


class CohereAttention(Attention):
    """Attention with norms of queries and keys, each head with weights of its own."""

    def __init__(self, config: CohereConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.attention_bias, rotate=rotate_neighbours)
        if config.use_qk_norm:
            assert config.num_key_value_heads is not None
            eps = config.layer_norm_eps
            self.has_norms = True
            self.q_norm = HeadwiseLayerNorm(config.num_attention_heads, self.head_dim, eps)
            self.k_norm = HeadwiseLayerNorm(config.num_key_value_heads, self.head_dim, eps)


class CohereModel(DecoderModel, architecture=COHERE):
    """Command R without a head."""

    def make_layer(self, config: CohereConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer whose attention and MLP read the same norm."""
        return ParallelLayer(config, CohereAttention(config, layer_idx), MLP(config), cohere_norm)

    def make_norm(self, config: Any) -> Any:
        """Create the last norm."""
        return cohere_norm(config)


class ScaledForCausalLM(heads.ForCausalLM):
    """Predicts the next token, with logits times `logit_scale` of the config."""

    def score(self, states: Tensor) -> Tensor:
        """Map last states to logits."""
        logits: Tensor = self.head(states) * self.config.logit_scale
        return logits


class CohereForCausalLM(ScaledForCausalLM, base=CohereModel): ...
