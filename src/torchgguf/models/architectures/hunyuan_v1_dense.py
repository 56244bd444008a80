"""Hunyuan (Tencent 2025), dense: a Llama that normalises queries and keys after it rotated them."""

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import RMSNorm, RotaryEmbedding


@config_dataclass
class HunYuanDenseV1Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    A `rope_type` of "dynamic" with an `alpha`, as in released checkpoints, means one larger base for all
    lengths of texts.
    """

    model_type = "hunyuan_v1_dense"

    vocab_size: int = 290943
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    eod_token_id: int | None = 3
    attention_bias: bool = False


def with_larger_base(parameters: dict[str, Any], head_dim: int) -> dict[str, Any]:
    """Return `rope_parameters` in which `alpha` is part of the base."""
    if parameters["rope_type"] != "dynamic" or not (alpha := parameters.get("alpha")):
        return parameters
    base = parameters["rope_theta"] * alpha ** (head_dim / (head_dim - 2))
    return {"rope_type": "default", "rope_theta": base}


class HunYuanRope(Rope):
    """Rotary embedding; files contain the larger base."""

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding."""
        parameters = with_larger_base(config.rope_parameters, config.head_dim)
        return super().write(SimpleNamespace(rope_parameters=parameters, head_dim=config.head_dim))


HUNYUAN_DENSE = Architecture(
    gguf="hunyuan-dense",
    config_class=HunYuanDenseV1Config,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        HunYuanRope(),
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        Row("blk.{}.attn_q_norm", "layers.{}.self_attn.query_layernorm"),
        Row("blk.{}.attn_k_norm", "layers.{}.self_attn.key_layernorm"),
        *tables.GATED_MLP,
    ),
)


class HunYuanAttention(Attention):
    """Attention whose norms follow the rotation."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.attention_bias)
        self.query_layernorm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.key_layernorm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def position(self, query: Tensor, key: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Rotate queries and keys, then normalise them."""
        query, key = super().position(query, key, step)
        return self.query_layernorm(query), self.key_layernorm(key)


class HunYuanDenseV1Model(DecoderModel, architecture=HUNYUAN_DENSE):
    """Hunyuan without a head."""

    def make_rotary(self, config: HunYuanDenseV1Config) -> RotaryEmbedding:
        """Create the module that computes the angles."""
        assert config.rope_parameters and config.head_dim
        return RotaryEmbedding(with_larger_base(config.rope_parameters, config.head_dim), config.head_dim)

    def make_layer(self, config: HunYuanDenseV1Config, layer_idx: int) -> DecoderLayer:
        """Make a layer."""
        return DecoderLayer(config, HunYuanAttention(config, layer_idx), MLP(config))


class HunYuanDenseV1ForCausalLM(heads.ForCausalLM, base=HunYuanDenseV1Model): ...


class HunYuanDenseV1ForSequenceClassification(heads.ForSequenceClassification, base=HunYuanDenseV1Model): ...
