"""Models of these layers with mixtures of experts: one more expert for all tokens, which a gate scales."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.gated_delta.model import GatedDeltaModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.core.config_map import Harmless, Implied, MaybeZero, Rule, largest_dimension

_MLP = "feed_forward_length"
_SHARED = "shared_expert_intermediate_size"

EXPERT_RULES = (
    *tables.expert_rules(),
    MaybeZero("expert_shared_feed_forward_length", _SHARED, limit=largest_dimension),
    Implied(_SHARED, lambda tensors: tensors["blk.0.ffn_gate_shexp.weight"].shape[0]),
)


def without_mlp(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules of models whose layers all have experts: files need not state the size of an MLP."""
    return tuple(Harmless(rule.keys) if _MLP in rule.keys else rule for rule in rules)


class GatedDeltaMoeModel(GatedDeltaModel):
    """The model without a head."""

    output_class = MoeModelOutputWithPast

    def make_mlp(self, config: Any, layer_idx: int) -> nn.Module:
        """Create the experts of a layer."""
        shared = MLP(config, intermediate_size=config.shared_expert_intermediate_size)
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        router = partial(
            moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=config.norm_topk_prob
        )
        return moe.SparseMoeBlock(experts, router, shared)
