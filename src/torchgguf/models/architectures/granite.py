"""Granite 3 (Granite Team, IBM 2024): a Llama with four multipliers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.models.architectures.llama import LLAMA_ROWS, LLAMA_RULES, NO_EXPERTS
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderModel, ScaledResidualLayer
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Header, Implied, Only, Rule


@config_dataclass
class StreamMultipliers(DecoderConfig):
    """Multipliers of the stream.

    `embedding_multiplier` applies to embedded tokens, `residual_multiplier` to what layers add to the stream.
    Logits are divided by `logits_scaling`.
    """

    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    attention_bias: bool = False
    embedding_multiplier: float = 1.0
    logits_scaling: float = 1.0
    residual_multiplier: float = 1.0

    def __post_init__(self, *legacy: Any) -> None:
        """Check the divisor."""
        super().__post_init__(*legacy)
        if self.logits_scaling == 0:
            raise ValueError("logits_scaling must not be 0")


_OF_RECURRENT_LAYERS = ("conv_kernel", "group_count", "inner_size", "state_size", "time_step_rank")


@config_dataclass
class MultiplierFields(StreamMultipliers):
    """The four multipliers of Granite's models; `attention_multiplier` applies to scores of positions."""

    attention_multiplier: float = 1.0


class Multipliers(Rule):
    """The multipliers: without a key, or with 0, one has no effect, as in llama.cpp.

    Attributes:
        fields: of the config, by their keys.
    """

    fields: ClassVar[Mapping[str, str]] = {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    }

    def __init__(self) -> None:
        self.keys = tuple(self.fields)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the multipliers."""
        width, heads = (header.positive(key, int) for key in ("embedding_length", "attention.head_count"))
        head_dim = header.get("attention.key_length", 0) or width // heads
        if head_dim < 1:
            raise GGUFError(f"the size of a head must be above 0, got {head_dim}")
        neutral = {"attention.scale": head_dim**-0.5}
        return {
            field: float(header.get(key, 0.0)) or neutral.get(key, 1.0) for key, field in self.fields.items()
        }

    def write(self, config: Any) -> dict[str, Any]:
        """Write the multipliers."""
        values = {key: float(getattr(config, field)) for key, field in self.fields.items()}
        if zero := [self.fields[key] for key, value in values.items() if not value]:
            raise ValueError(f"GGUF does not support {zero[0]}=0: to readers, it is no multiplier")
        return values


MULTIPLIER_RULES = (
    *LLAMA_RULES,
    Multipliers(),
    Implied("attention_bias", tables.in_first_layer("attn_output.bias")),
    NO_WINDOW,
    # Files of hybrids without recurrent layers state what such layers would be.
    Harmless(tuple(f"ssm.{key}" for key in _OF_RECURRENT_LAYERS)),
)


class MultipliedDecoder(DecoderModel):
    """A decoder that multiplies embedded tokens."""

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Multiply embedded tokens, those that callers pass, too."""
        scaled: Tensor = x * self.config.embedding_multiplier
        return scaled


class DividedLogits(heads.ForCausalLM):
    """Predicts the next token; logits are divided by `logits_scaling` of the config."""

    def score(self, states: Tensor) -> Tensor:
        """Map last states to logits."""
        logits: Tensor = super().score(states) / self.config.logits_scaling
        return logits


@config_dataclass
class GraniteConfig(MultiplierFields):
    """Fields beyond the multipliers."""

    model_type = "granite"

    mlp_bias: bool = False


GRANITE = Architecture(
    gguf="granite",
    config_class=GraniteConfig,
    rules=(
        *MULTIPLIER_RULES,
        *NO_EXPERTS,
        Implied("mlp_bias", lambda tensors: "blk.0.ffn_gate.bias" in tensors),
        Harmless(("expert_shared_feed_forward_length",)),  # of those, too: it is that of the MLP
        # To llama.cpp, this key states whether layers rotate.
        Only("rope.scaling.finetuned", True, "layers without rotation are unsupported for this architecture"),
    ),
    rows=LLAMA_ROWS,
)


class GraniteModel(MultipliedDecoder, architecture=GRANITE):
    """Granite without a head."""

    def make_layer(self, config: GraniteConfig, layer_idx: int) -> ScaledResidualLayer:
        """Make a layer; the config states whether attention and MLP use biases."""
        attention = Attention(
            config, layer_idx, bias=config.attention_bias, scaling=config.attention_multiplier
        )
        return ScaledResidualLayer(config, attention, MLP(config, bias=config.mlp_bias))


class GraniteForCausalLM(DividedLogits, base=GraniteModel): ...
