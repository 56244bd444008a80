"""OLMoE (Muennighoff et al. 2024, arXiv 2409.02060): norms of all queries and keys, mixtures of experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.attention import AttentionNormingAllHeads
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class OlmoeConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    `clip_qkv`, unless None, bounds queries, keys and values.
    """

    model_type = "olmoe"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    vocab_size: int = 50304
    hidden_size: int = 2048
    intermediate_size: int = 2048
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    eos_token_id: int | list[int] | None = 50279
    pad_token_id: int | None = 1
    attention_bias: bool = False
    clip_qkv: float | None = None
    num_experts_per_tok: int = 8
    num_experts: int = 64
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.01

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


OLMOE = Architecture(
    gguf="olmoe",
    config_class=OlmoeConfig,
    rules=(
        *tables.DECODER_RULES,
        *tables.expert_rules(size=None),
        # llama.cpp (src/models/olmoe.cpp) reads neither.
        Unwritable("attention_bias", False),
        Unwritable("clip_qkv", None),
        Unwritable("norm_topk_prob", False),
        NO_WINDOW,
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.QK_NORMS, *tables.EXPERTS),
    stacks=tables.EXPERT_STACKS,
    states_head=True,
)


class OlmoeAttention(AttentionNormingAllHeads):
    """Attention with norms of all heads together, whose results `clip_qkv` bounds."""

    def __init__(self, config: OlmoeConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.attention_bias, qk_norm=RMSNorm)
        self.bound = config.clip_qkv

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, as `Attention.project`."""
        query, key, value = super().project(x)
        if (bound := self.bound) is None:
            return query, key, value
        return query.clamp(-bound, bound), key.clamp(-bound, bound), value.clamp(-bound, bound)


class OlmoeModel(DecoderModel, architecture=OLMOE):
    """OLMoE without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: OlmoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with experts."""
        experts = moe.gated_experts(config, config.num_experts, config.intermediate_size)
        router = partial(
            moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=config.norm_topk_prob
        )
        return DecoderLayer(config, OlmoeAttention(config, layer_idx), moe.SparseMoeBlock(experts, router))


class OlmoeForCausalLM(moe.MoeForCausalLM, base=OlmoeModel): ...
