"""Granite 3 with mixtures of experts instead of MLPs (Granite Team, IBM 2024)."""

from functools import partial
from typing import Any

from torchgguf.models.architectures.granite import (
    MULTIPLIER_RULES,
    DividedLogits,
    MultipliedDecoder,
    MultiplierFields,
)
from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import ScaledResidualLayer
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Only
from torchgguf.models.core.weight_map import OtherNames


@config_dataclass
class GraniteMoeConfig(MultiplierFields):
    """Fields beyond the multipliers."""

    model_type = "granitemoe"

    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        self.check_experts()

    def check_experts(self) -> None:
        """Check the number of experts."""
        moe.check_choices(self.num_experts_per_tok, self.num_local_experts)


# Of models with a head, in transformers.
ARGUMENT_ORDER = ("input_ids", "attention_mask", "position_ids", "cache", "inputs_embeds", "labels")

_BLOCK = "layers.{}.block_sparse_moe"

GRANITE_MOE = Architecture(
    gguf="granitemoe",
    config_class=GraniteMoeConfig,
    rules=(
        *MULTIPLIER_RULES,
        *tables.expert_rules("num_local_experts", size=None),
        Only("expert_shared_feed_forward_length", 0, "a shared expert is of another model"),
        Harmless(("rope.scaling.finetuned",)),  # llama.cpp rotates in any case
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.INTERLEAVED_ATTENTION,
        *tables.expert_rows("block_sparse_moe", "router"),
    ),
    other_names=OtherNames(
        {
            f"{_BLOCK}.router": f"{_BLOCK}.router.layer",
            f"{_BLOCK}.experts.gate_up_proj": f"{_BLOCK}.input_linear.weight",
            f"{_BLOCK}.experts.down_proj": f"{_BLOCK}.output_linear.weight",
        }
    ),
)


class GraniteMoeBlock(moe.SparseMoeBlock):
    """Experts, and the router that chooses among them."""

    layer_name = "block_sparse_moe"
    gate_name = "router"


def expert_block(config: GraniteMoeConfig) -> GraniteMoeBlock:
    """Create the experts of a layer."""
    experts = moe.gated_experts(config, config.num_local_experts, config.intermediate_size)
    router = partial(moe.choose_then_softmax, choices=config.num_experts_per_tok)
    return GraniteMoeBlock(experts, router)


class GraniteMoeModel(MultipliedDecoder, architecture=GRANITE_MOE):
    """Granite with experts, without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: GraniteMoeConfig, layer_idx: int) -> ScaledResidualLayer:
        """Make a layer with experts."""
        attention = Attention(
            config, layer_idx, bias=config.attention_bias, scaling=config.attention_multiplier
        )
        return ScaledResidualLayer(config, attention, expert_block(config))


class GraniteMoeForCausalLM(DividedLogits, moe.MoeForCausalLM, base=GraniteMoeModel):
    """Predicts the next token."""

    argument_order = ARGUMENT_ORDER
