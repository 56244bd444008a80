"""K-EXAONE (LG AI Research 2025): EXAONE 4's attention, with experts chosen by sigmoids with a bias.

Norms are before attention and MLP. Only the layers with a window rotate queries and keys.
"""

from typing import Any

from torchgguf.models.architectures.exaone4 import Exaone4Config
from torchgguf.models.architectures.kimi_linear import DENSE, SPARSE, DenseFirst
from torchgguf.models.blocks import moe, nextn, routing_rules, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.layer_kinds import check_layer_types
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Count, Flag, Harmless, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import OtherNames
from torchgguf.nn import RMSNorm


@config_dataclass
class ExaoneMoeConfig(Exaone4Config):
    """Fields beyond those of EXAONE 4, and other defaults.

    `mlp_layer_types` names the layers with experts; by default all after the first `first_k_dense_replace`.
    `num_nextn_predict_layers` counts blocks for multi-token prediction, which are kept and not run.
    """

    model_type = "exaone_moe"

    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 53
    pad_token_id: int | None = 0
    mlp_layer_types: list[str] | None = None
    first_k_dense_replace: int = 1
    moe_intermediate_size: int = 1024
    num_experts: int = 64
    num_experts_per_tok: int = 8
    output_router_logits: bool = False
    num_shared_experts: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 2.5
    n_group: int = 1
    topk_group: int = 1
    num_nextn_predict_layers: int = 0

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in the kinds of MLPs, and check them and the numbers of experts."""
        super().__post_init__(*legacy)
        layers, dense = self.num_hidden_layers, self.first_k_dense_replace
        if self.mlp_layer_types is None:
            self.mlp_layer_types = [DENSE if i < dense else SPARSE for i in range(layers)]
        check_layer_types(self.mlp_layer_types, (DENSE, SPARSE), layers)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)
        moe.check_groups(self.n_group, self.topk_group, self.num_experts, self.num_experts_per_tok)

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None, layers: int) -> dict[str, Any]:
        """Return the fields for a window and a pattern of the layers with it; None: the default pattern."""
        return super(Exaone4Config, cls).window_fields(window, pattern, layers)


class ExaoneMoeRope(Rope):
    """Rotary embedding; files name its scaling even if there is none."""

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding."""
        return {"rope.scaling.type": "none", **super().write(config)}


class SharedMlpSize(Harmless):
    """The size of the shared experts together, which follows from other fields."""

    def write(self, config: ExaoneMoeConfig) -> dict[str, Any]:
        """Write the size."""
        return {self.keys[0]: config.moe_intermediate_size * config.num_shared_experts}


EXAONE_MOE = Architecture(
    gguf="exaone-moe",
    config_class=ExaoneMoeConfig,
    rules=(
        *nextn.counting_others(tables.COMMON_RULES, nextn.SeparateLayers, none_is_stated=True),
        tables.ROTATED_SIZE,
        ExaoneMoeRope(),
        Unwritable("hidden_act", "silu"),
        LayerWindows(ExaoneMoeConfig),
        *tables.expert_rules(),
        routing_rules.Groups(),
        routing_rules.WeightScale(),
        Count("expert_shared_count", "num_shared_experts", limit=largest_dimension),
        SharedMlpSize(("expert_shared_feed_forward_length",)),
        DenseFirst(),
        Flag("expert_weights_norm", "norm_topk_prob"),
        routing_rules.Gating(routing_rules.SIGMOID),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
        tables.CORRECTION,
        *nextn.NEXTN,
    ),
    stacks=tables.EXPERT_STACKS,
    other_names=OtherNames(
        {"layers.{}.mlp.gate.e_score_correction_bias": "layers.{}.mlp.e_score_correction_bias"}
    ),
    states_head=True,
)


class ExaoneMoeModel(DecoderModel, architecture=EXAONE_MOE):
    """K-EXAONE without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: ExaoneMoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        assert config.mlp_layer_types
        window = config.window_of(layer_idx)
        rotation = None if window is None else "default"
        attention = Attention(config, layer_idx, window, qk_norm=RMSNorm, rotation=rotation)
        if config.mlp_layer_types[layer_idx] == DENSE:
            return DecoderLayer(config, attention, MLP(config))
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        shared = MLP(config, intermediate_size=config.moe_intermediate_size * config.num_shared_experts)
        block = moe.CorrectedMoeBlock(experts, moe.sigmoid_router(config), shared_experts=shared)
        return DecoderLayer(config, attention, block)


class ExaoneMoeForCausalLM(moe.RoutedForCausalLM, base=ExaoneMoeModel): ...
