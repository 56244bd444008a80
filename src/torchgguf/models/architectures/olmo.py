"""OLMo (Groeneveld et al. 2024, arXiv 2402.00838): a Llama whose norms have a mean, but no weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Constant, Header, NoneIfZero, Unwritable

_EPSILON = 1e-5


@config_dataclass
class OlmoConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    `clip_qkv`, unless None, bounds queries, keys and values.
    """

    model_type = "olmo"
    left_out = ("rms_norm_eps",)

    vocab_size: int = 50304
    eos_token_id: int | list[int] | None = 50279
    pad_token_id: int | None = 1
    attention_bias: bool = False
    clip_qkv: float | None = None


class FixedEpsilon(Constant):
    """The epsilon of norms, which is the same in all models."""

    def __init__(self) -> None:
        super().__init__("attention.layer_norm_epsilon", _EPSILON, f"this model requires {_EPSILON}")

    def read(self, header: Header) -> dict[str, Any]:
        """Refuse every other value, but for rounding to float32."""
        value = header.positive(self.key, float)
        return {} if abs(value - _EPSILON) < 1e-9 else super().read(header)


OLMO = Architecture(
    gguf="olmo",
    config_class=OlmoConfig,
    rules=(
        *tables.SIZE_RULES,
        FixedEpsilon(),
        NoneIfZero("attention.clamp_kqv", "clip_qkv", float, required=False),
        tables.ROTATED_SIZE,
        Rope(),
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
    ),
    rows=(*tables.STREAM[::2], *tables.INTERLEAVED_ATTENTION, *tables.GATED_MLP),
    unread=tables.GATED_MLP_FACTORS,
)


class OlmoNorm(nn.Module):
    """A norm with a mean and without parameters, computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.layer_norm(x.to(torch.float32), x.shape[-1:], eps=_EPSILON).to(x.dtype)


class OlmoAttention(Attention):
    """Attention with bounded queries, keys and values."""

    def __init__(self, config: OlmoConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.attention_bias)
        self.bound = config.clip_qkv

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, as `Attention.project`."""
        query, key, value = super().project(x)
        if (bound := self.bound) is None:
            return query, key, value
        return query.clamp(-bound, bound), key.clamp(-bound, bound), value.clamp(-bound, bound)


class OlmoModel(PlainDecoderModel, architecture=OLMO):
    """OLMo without a head."""

    def make_norm(self, config: OlmoConfig) -> OlmoNorm:
        """Create a norm without parameters."""
        return OlmoNorm()

    def make_attention(self, config: OlmoConfig, layer_idx: int) -> OlmoAttention:
        """Make the attention of a layer."""
        return OlmoAttention(config, layer_idx)

    def make_mlp(self, config: OlmoConfig, layer_idx: int) -> MLP:
        """Make the MLP of a layer."""
        return MLP(config)


class OlmoForCausalLM(heads.ForCausalLM, base=OlmoModel): ...


class OlmoForSequenceClassification(heads.ForSequenceClassification, base=OlmoModel): ...
