"""Qwen3-Next (2025): layers of the gated delta rule with fused projections, gated attention, many experts."""

from typing import Any

from torch import nn

from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.gated_delta import rows
from torchgguf.models.blocks.gated_delta.config import RULES, GatedDeltaConfig
from torchgguf.models.blocks.gated_delta.drafting import Drafting
from torchgguf.models.blocks.gated_delta.experts import EXPERT_RULES, GatedDeltaMoeModel
from torchgguf.models.blocks.gated_delta.mixers import FusedGatedDeltaNet
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class Qwen3NextConfig(GatedDeltaConfig):
    """Fields beyond those of all models with the gated delta rule, and other defaults.

    Layers in `mlp_only_layers`, and all except every `decoder_sparse_step`-th, use a plain MLP of
    `intermediate_size` instead of experts.
    """

    model_type = "qwen3_next"

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 48
    num_key_value_heads: int | None = 2
    decoder_sparse_step: int = 1
    moe_intermediate_size: int = 512
    shared_expert_intermediate_size: int = 512
    num_experts_per_tok: int = 10
    num_experts: int = 512
    norm_topk_prob: bool = True
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    mlp_only_layers: list[int] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        self.mlp_only_layers = self.mlp_only_layers or []
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)
        if self.decoder_sparse_step < 1:
            raise ValueError(f"decoder_sparse_step must be at least 1, got {self.decoder_sparse_step}")

    def is_sparse(self, layer_idx: int) -> bool:
        """Return whether a layer has experts."""
        assert self.mlp_only_layers is not None
        return layer_idx not in self.mlp_only_layers and (layer_idx + 1) % self.decoder_sparse_step == 0


QWEN3_NEXT = Architecture(
    gguf="qwen3next",
    config_class=Qwen3NextConfig,
    rules=(
        *RULES,
        *EXPERT_RULES,
        PartialRope(),
        # llama.cpp (src/models/qwen3next.cpp) supports experts in every layer, and always normalises weights.
        Unwritable("norm_topk_prob", True),
        Unwritable("decoder_sparse_step", 1),
        Unwritable("mlp_only_layers", []),
    ),
    rows=(*rows.FUSED_ROWS, *tables.EXPERTS, *tables.SHARED_EXPERT),
    stacks=tables.EXPERT_STACKS,
    kept_forms=rows.KEPT_FORMS,
)


class Qwen3NextModel(GatedDeltaMoeModel, architecture=QWEN3_NEXT):
    """Qwen3-Next without a head."""

    mixer_class = FusedGatedDeltaNet

    def make_mlp(self, config: Qwen3NextConfig, layer_idx: int) -> nn.Module:
        """Create the experts of a layer, or its MLP."""
        return super().make_mlp(config, layer_idx) if config.is_sparse(layer_idx) else MLP(config)


class Qwen3NextForCausalLM(Drafting, moe.MoeForCausalLM, base=Qwen3NextModel): ...


class Qwen3NextForSequenceClassification(heads.ForSequenceClassification, base=Qwen3NextModel): ...


class Qwen3NextForTokenClassification(heads.ForTokenClassification, base=Qwen3NextModel): ...


class Qwen3NextForQuestionAnswering(heads.ForQuestionAnswering, base=Qwen3NextModel):
    base_model_prefix = "transformer"  # the name in released checkpoints
