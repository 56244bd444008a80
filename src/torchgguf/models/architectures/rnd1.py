"""RND1 (Radical Numerics 2025): a Qwen3-MoE that fills in masked tokens.

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
class RND1Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "rnd1"

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 48
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 4
    head_dim: int | None = 128
    max_position_embeddings: int = 40960
    moe_intermediate_size: int = 768
    num_experts: int = 128
    num_experts_per_tok: int = 8
    use_cache: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


RND1 = Architecture(
    gguf="rnd1",
    config_class=RND1Config,
    rules=(*BIDIRECTIONAL_RULES, *tables.expert_rules(), NO_WINDOW),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.QK_NORMS, *tables.EXPERTS),
    stacks=tables.EXPERT_STACKS,
)


class RND1Model(BidirectionalModel, architecture=RND1):
    """RND1 without a head."""

    output_class = MoeModelOutputWithPast

    def make_attention(self, config: RND1Config, layer_idx: int) -> Attention:
        """Make attention with norms of queries and keys."""
        return Attention(config, layer_idx, qk_norm=RMSNorm)

    def make_mlp(self, config: RND1Config, layer_idx: int) -> moe.SparseMoeBlock:
        """Make experts."""
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        router = partial(moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=True)
        return moe.SparseMoeBlock(experts, router)


class RND1ForCausalLM(moe.MoeForCausalLM, base=RND1Model): ...
