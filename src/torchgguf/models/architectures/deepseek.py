"""DeepSeekMoE (Dai et al. 2024, arXiv 2401.06066): many small experts, and some that all tokens share.

transformers has no such class: the checkpoints contain code, which is not run. Parameters have the names in
checkpoints.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torchgguf.models.blocks import moe, routing_rules, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class DeepseekConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    The first `first_k_dense_replace` layers use a plain MLP of `intermediate_size` instead of experts.
    """

    model_type = "deepseek"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_experts": "n_routed_experts"}

    vocab_size: int = 102400
    hidden_size: int = 2048
    intermediate_size: int = 10944
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    max_position_embeddings: int = 4096
    bos_token_id: int | None = 100000
    eos_token_id: int | list[int] | None = 100001
    moe_intermediate_size: int = 1408
    n_routed_experts: int = 64
    n_shared_experts: int = 2
    num_experts_per_tok: int = 6
    first_k_dense_replace: int = 1
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0
    output_router_logits: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)


DEEPSEEK = Architecture(
    gguf="deepseek",
    config_class=DeepseekConfig,
    rules=(
        *tables.DECODER_RULES,
        NO_WINDOW,
        *(rule for rule in routing_rules.GROUPED_EXPERTS if not isinstance(rule, routing_rules.Groups)),
        Unwritable("norm_topk_prob", False),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.INTERLEAVED_ATTENTION,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
    ),
    stacks=tables.EXPERT_STACKS,
)


class DeepseekModel(DecoderModel, architecture=DEEPSEEK):
    """DeepSeekMoE without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: DeepseekConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        attention = Attention(config, layer_idx)
        if layer_idx < config.first_k_dense_replace:
            return DecoderLayer(config, attention, MLP(config))
        router = partial(
            moe.softmax_then_choose_in_groups,
            choices=config.num_experts_per_tok,
            normalize=config.norm_topk_prob,
            scale=config.routed_scaling_factor,
            groups=1,
            chosen_groups=1,
        )
        experts = moe.gated_experts(config, config.n_routed_experts, config.moe_intermediate_size)
        return DecoderLayer(
            config, attention, moe.SparseMoeBlock(experts, router, shared_experts=moe.shared_experts(config))
        )


class DeepseekForCausalLM(moe.RoutedForCausalLM, base=DeepseekModel): ...
