"""LLaDA-MoE (Zhu et al. 2025, arXiv 2509.24389): a mixture of experts that fills in masked tokens.

Positions see each other in both directions, so there is no cache, and tokens are not generated one by one.
transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from functools import partial
from typing import Any

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.bidirectional import BIDIRECTIONAL_RULES, BidirectionalModel
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.nn import RMSNorm


@config_dataclass
class LLaDAMoeConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "llada_moe"

    vocab_size: int = 157184
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    max_position_embeddings: int = 8192
    moe_intermediate_size: int = 1024
    num_experts: int = 64
    num_experts_per_tok: int = 8
    use_cache: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


LLADA_MOE = Architecture(
    gguf="llada-moe",
    config_class=LLaDAMoeConfig,
    rules=(*BIDIRECTIONAL_RULES, *tables.expert_rules(), NO_WINDOW),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.QK_NORMS, *tables.EXPERTS),
    stacks=tables.EXPERT_STACKS,
    states_head=True,
)


class LLaDAMoeModel(BidirectionalModel, architecture=LLADA_MOE):
    """LLaDAMoe without a head."""

    output_class = MoeModelOutputWithPast

    def make_attention(self, config: LLaDAMoeConfig, layer_idx: int) -> Attention:
        """Make attention with norms of queries and keys."""
        return Attention(config, layer_idx, qk_norm=RMSNorm)

    def make_mlp(self, config: LLaDAMoeConfig, layer_idx: int) -> moe.SparseMoeBlock:
        """Make experts."""
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        router = partial(moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=False)
        return moe.SparseMoeBlock(experts, router)


class LLaDAMoeForCausalLM(moe.MoeForCausalLM, base=LLaDAMoeModel): ...
