"""GLM-4.5 (Zhipu AI 2025, arXiv 2508.06471): experts chosen by sigmoids with a bias, and shared experts.

The first layers have a plain MLP. Blocks that predict further tokens are kept, not run.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torchgguf.models.blocks import moe, nextn, routing_rules, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Flag, Implied, Unwritable
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import RMSNorm


@config_dataclass
class Glm4MoeConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    The first `first_k_dense_replace` layers use a plain MLP of `intermediate_size` instead of experts.
    """

    model_type = "glm4_moe"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "num_mtp_layers": "num_nextn_predict_layers",
    }
    rotates_parts = True
    default_part = 0.5

    vocab_size: int = 151552
    intermediate_size: int = 10944
    num_hidden_layers: int = 46
    num_attention_heads: int = 96
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    moe_intermediate_size: int = 1408
    num_experts_per_tok: int = 8
    output_router_logits: bool = False
    n_shared_experts: int = 1
    n_routed_experts: int = 128
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 1
    norm_topk_prob: bool = True
    use_qk_norm: bool = False
    num_nextn_predict_layers: int = 1

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts and their groups."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)
        moe.check_groups(self.n_group, self.topk_group, self.n_routed_experts, self.num_experts_per_tok)


GLM4_MOE = Architecture(
    gguf="glm4moe",
    config_class=Glm4MoeConfig,
    rules=(
        *nextn.counting_others(tables.COMMON_RULES),
        PartialRope(),
        Unwritable("hidden_act", "silu"),
        Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
        Implied("use_qk_norm", tables.in_first_layer("attn_q_norm.weight")),
        *routing_rules.GROUPED_EXPERTS,
        Flag("expert_weights_norm", "norm_topk_prob"),
        routing_rules.Gating(routing_rules.SIGMOID),
    ),
    rows=(
        *tables.STREAM,
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        Row("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
        tables.CORRECTION,
        *nextn.NEXTN,
    ),
    stacks=tables.EXPERT_STACKS,
)


class Glm4MoeModel(DecoderModel, architecture=GLM4_MOE):
    """GLM-4.5 without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: Glm4MoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        norm = RMSNorm if config.use_qk_norm else None
        bias = config.attention_bias
        attention = Attention(config, layer_idx, bias=bias, output_bias=False, qk_norm=norm)
        if layer_idx < config.first_k_dense_replace:
            return DecoderLayer(config, attention, MLP(config))
        return DecoderLayer(config, attention, moe.sigmoid_experts(config))


class Glm4MoeForCausalLM(moe.RoutedForCausalLM, base=Glm4MoeModel): ...
