"""Granite with mixtures of experts and one expert that all tokens share (Granite Team, IBM 2025)."""

from typing import Any

from torch import Tensor, nn

from torchgguf.models.architectures.granite import DividedLogits, MultipliedDecoder
from torchgguf.models.architectures.granitemoe import (
    ARGUMENT_ORDER,
    GRANITE_MOE,
    GraniteMoeConfig,
    expert_block,
)
from torchgguf.models.blocks import moe
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import ScaledResidualLayer
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, largest_dimension
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import Linear, find_activation
from torchgguf.nn.stacked import StackedLinear

_SIZE = "expert_shared_feed_forward_length"


@config_dataclass
class GraniteMoeSharedConfig(GraniteMoeConfig):
    """Fields beyond those of Granite with experts; the shared expert is `shared_intermediate_size` wide.

    0: there is none.
    """

    model_type = "granitemoeshared"

    shared_intermediate_size: int = 0


_SHARED = "layers.{}.shared_mlp"

GRANITE_MOE_SHARED = Architecture(
    gguf="granitemoe",
    config_class=GraniteMoeSharedConfig,
    rules=(
        *(rule for rule in GRANITE_MOE.rules if _SIZE not in rule.keys),
        Field(_SIZE, "shared_intermediate_size", limit=largest_dimension),
    ),
    rows=(
        *GRANITE_MOE.rows,
        Row("blk.{}.ffn_gate_shexp", f"{_SHARED}.input_linear.gate_proj"),
        Row("blk.{}.ffn_up_shexp", f"{_SHARED}.input_linear.up_proj"),
        Row("blk.{}.ffn_down_shexp", f"{_SHARED}.output_linear"),
    ),
    matches=lambda metadata: bool(metadata.get(f"granitemoe.{_SIZE}")),
    other_names=GRANITE_MOE.other_names,
)


class SharedExpert(nn.Module):
    """The expert that all tokens share."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.shared_intermediate_size
        self.input_linear = StackedLinear(config.hidden_size, 2 * size, ("gate_proj", "up_proj"))
        self.output_linear = Linear(size, config.hidden_size, bias=False)
        self.act_fn = find_activation("hidden_act", config.hidden_act)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        gate, up = self.input_linear(x).chunk(2, dim=-1)
        output: Tensor = self.output_linear(self.act_fn(gate) * up)
        return output


class GraniteMoeSharedLayer(ScaledResidualLayer):
    """A layer that adds the output of the shared expert to that of the others."""

    def __init__(self, config: Any, mixer: Any, mlp: Any) -> None:
        super().__init__(config, mixer, mlp)
        self.shared_mlp = SharedExpert(config) if config.shared_intermediate_size else None

    def branch(self, name: str, x: Tensor, step: Step, before: str | None, after: str | None) -> Tensor:
        """Return the output of the attention, or of all experts."""
        if name != self.mlp_name or self.shared_mlp is None or before is None:
            return super().branch(name, x, step, before, after)
        normed = getattr(self, before)(x)
        output: Tensor = getattr(self, name)(normed, step) + self.shared_mlp(normed)
        return output


class GraniteMoeSharedModel(MultipliedDecoder, architecture=GRANITE_MOE_SHARED):
    """Granite with experts, one of them shared, without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: GraniteMoeSharedConfig, layer_idx: int) -> GraniteMoeSharedLayer:
        """Make a layer with experts."""
        attention = Attention(
            config, layer_idx, bias=config.attention_bias, scaling=config.attention_multiplier
        )
        return GraniteMoeSharedLayer(config, attention, expert_block(config))


class GraniteMoeSharedForCausalLM(DividedLogits, moe.MoeForCausalLM, base=GraniteMoeSharedModel):
    """Predicts the next token."""

    argument_order = ARGUMENT_ORDER
