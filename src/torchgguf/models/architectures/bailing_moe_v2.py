"""Ling 2 and Ring (Inclusion AI 2025, arXiv 2510.22115): experts that sigmoids with a bias choose in groups.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import moe, nextn, routing_rules, tables
from torchgguf.models.blocks.attention import FusedAttention
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.plain_decoder import PlainDecoderModel
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.blocks.sigmoid_experts import SigmoidExpertsConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Flag, Unwritable
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import RMSNorm


@config_dataclass
class BailingMoeV2Config(SigmoidExpertsConfig):
    """Fields of decoders with such experts, with other defaults."""

    model_type = "bailing_moe_v2"
    rotates_parts = True
    default_part = 0.5

    vocab_size: int = 157184
    hidden_size: int = 2048
    intermediate_size: int = 5120
    num_hidden_layers: int = 20
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 32768
    moe_intermediate_size: int = 512
    n_routed_experts: int = 256
    num_experts_per_tok: int = 8
    routed_scaling_factor: float = 2.5
    n_group: int = 8
    topk_group: int = 4
    first_k_dense_replace: int = 1
    num_nextn_predict_layers: int = 0


BAILING_MOE_V2 = Architecture(
    gguf="bailingmoe2",
    config_class=BailingMoeV2Config,
    rules=(
        *nextn.counting_others(tables.COMMON_RULES),
        PartialRope(),
        Unwritable("hidden_act", "silu"),
        *routing_rules.GROUPED_EXPERTS,
        Flag("expert_weights_norm", "norm_topk_prob"),
        routing_rules.Gating(routing_rules.SIGMOID),
        routing_rules.SharedExpertSize(),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.FUSED_ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
        tables.CORRECTION,
        *nextn.NEXTN,
        Row("blk.{}.layer_output_norm", "layers.{}.final_layernorm"),
    ),
    stacks=tables.EXPERT_STACKS,
    states_head=True,
)


class BailingMoeV2Model(PlainDecoderModel, architecture=BAILING_MOE_V2):
    """Ling 2 without a head."""

    output_class = MoeModelOutputWithPast

    def make_attention(self, config: BailingMoeV2Config, layer_idx: int) -> FusedAttention:
        """Make attention with norms of queries and keys."""
        return FusedAttention(config, layer_idx, qk_norm=RMSNorm)

    def make_mlp(self, config: BailingMoeV2Config, layer_idx: int) -> MLP | moe.CorrectedMoeBlock:
        """Make a plain MLP, or experts."""
        return MLP(config) if layer_idx < config.first_k_dense_replace else moe.sigmoid_experts(config)


class BailingMoeV2ForCausalLM(moe.RoutedForCausalLM, base=BailingMoeV2Model): ...
