"""Ling, the first (Inclusion AI 2025, arXiv 2503.05139): experts that a softmax chooses, and shared ones.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from functools import partial
from typing import Any

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.plain_decoder import BIAS_RULES, PlainDecoderConfig, PlainDecoderModel
from torchgguf.models.blocks.routing_rules import WeightScale
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Flag, Harmless, largest_dimension


@config_dataclass
class BailingMoeConfig(PlainDecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "bailing_moe"

    vocab_size: int = 126464
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 16384
    moe_intermediate_size: int = 1408
    n_routed_experts: int = 64
    n_shared_experts: int = 2
    num_experts_per_tok: int = 6
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    output_router_logits: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)


BAILING_MOE = Architecture(
    gguf="bailingmoe",
    config_class=BailingMoeConfig,
    rules=(
        *tables.DECODER_RULES,
        *BIAS_RULES,
        *tables.expert_rules("n_routed_experts"),
        Field("expert_shared_count", "n_shared_experts", limit=largest_dimension),
        Flag("expert_weights_norm", "norm_topk_prob"),
        WeightScale(),
        NO_WINDOW,
        # llama.cpp (src/models/bailingmoe.cpp) does not use either.
        Harmless(("leading_dense_block_count", "expert_gating_func")),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.INTERLEAVED_ATTENTION,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
    ),
    stacks=tables.EXPERT_STACKS,
    states_head=True,
    unread=("rope_freqs.weight",),
)


class BailingMoeModel(PlainDecoderModel, architecture=BAILING_MOE):
    """Ling without a head."""

    output_class = MoeModelOutputWithPast

    def make_mlp(self, config: BailingMoeConfig, layer_idx: int) -> moe.SparseMoeBlock:
        """Make experts, and those that all tokens share."""
        experts = moe.gated_experts(config, config.n_routed_experts, config.moe_intermediate_size)
        router = partial(
            moe.softmax_then_choose_in_groups,
            choices=config.num_experts_per_tok,
            normalize=config.norm_topk_prob,
            scale=config.routed_scaling_factor,
            groups=1,
            chosen_groups=1,
        )
        return moe.SparseMoeBlock(experts, router, shared_experts=moe.shared_experts(config))


class BailingMoeForCausalLM(moe.RoutedForCausalLM, base=BailingMoeModel): ...
