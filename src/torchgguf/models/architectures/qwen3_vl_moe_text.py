"""The text part of Qwen3-VL with experts (Bai et al. 2025, arXiv 2511.21631): a Qwen3-MoE.

transformers has only the whole model, with images. Here are texts; parameters have Llama's names.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import SectionedRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Qwen3VLMoeTextConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "qwen3_vl_moe_text"
    default_theta = 500000.0
    attribute_map: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    max_position_embeddings: int = 128000
    moe_intermediate_size: int = 1408
    num_experts_per_tok: int = 4
    num_experts: int = 60
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    tie_word_embeddings: bool = True

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


QWEN3_VL_MOE_TEXT = Architecture(
    gguf="qwen3vlmoe",
    config_class=Qwen3VLMoeTextConfig,
    rules=(
        *tables.COMMON_RULES,
        *tables.expert_rules(),
        SectionedRope(),
        Unwritable("hidden_act", "silu"),
        Harmless(("n_deepstack_layers",)),  # layers to which states of images are added
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.QK_NORMS, *tables.EXPERTS),
    stacks=tables.EXPERT_STACKS,
)


class Qwen3VLMoeTextModel(PlainDecoderModel, architecture=QWEN3_VL_MOE_TEXT):
    """The text part of Qwen3-VL with experts, without a head."""

    output_class = MoeModelOutputWithPast

    def make_attention(self, config: Qwen3VLMoeTextConfig, layer_idx: int) -> Attention:
        """Make attention with norms of queries and keys."""
        return Attention(config, layer_idx, qk_norm=RMSNorm)

    def make_mlp(self, config: Qwen3VLMoeTextConfig, layer_idx: int) -> moe.SparseMoeBlock:
        """Make experts."""
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        router = partial(moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=True)
        return moe.SparseMoeBlock(experts, router)


class Qwen3VLMoeTextForCausalLM(moe.MoeForCausalLM, base=Qwen3VLMoeTextModel): ...
