"""The text part of Qwen3.5-MoE (2026): a Qwen3.5 with mixtures of experts instead of MLPs."""

from typing import Any, ClassVar

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.gated_delta import rows
from torchgguf.models.blocks.gated_delta.config import RULES, GatedDeltaConfig
from torchgguf.models.blocks.gated_delta.drafting import Drafting
from torchgguf.models.blocks.gated_delta.experts import EXPERT_RULES, GatedDeltaMoeModel, without_mlp
from torchgguf.models.blocks.rope_rule import SectionedRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class Qwen3_5MoeTextConfig(GatedDeltaConfig):
    """Fields beyond those of all models with the gated delta rule, and other defaults."""

    model_type = "qwen3_5_moe_text"
    left_out = ("intermediate_size",)
    norm_topk_prob: ClassVar[bool] = True

    vocab_size: int = 248320
    hidden_size: int = 2048
    num_hidden_layers: int = 40
    num_key_value_heads: int | None = 2
    moe_intermediate_size: int = 512
    shared_expert_intermediate_size: int = 512
    num_experts_per_tok: int = 8
    num_experts: int = 256
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


QWEN3_5_MOE_TEXT = Architecture(
    gguf="qwen35moe",
    config_class=Qwen3_5MoeTextConfig,
    rules=(
        *without_mlp(RULES),
        *EXPERT_RULES,
        SectionedRope(),
    ),
    rows=(*rows.SEPARATE_ROWS, *tables.EXPERTS, *tables.SHARED_EXPERT),
    stacks=tables.EXPERT_STACKS,
    kept_forms=rows.KEPT_FORMS,
    unused=("visual.",),
)


class Qwen3_5MoeTextModel(GatedDeltaMoeModel, architecture=QWEN3_5_MOE_TEXT):
    """Qwen3.5-MoE without a head."""


class Qwen3_5MoeForCausalLM(Drafting, moe.MoeForCausalLM, base=Qwen3_5MoeTextModel): ...
