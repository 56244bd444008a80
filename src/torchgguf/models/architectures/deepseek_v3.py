"""DeepSeek-V3 and R1 (DeepSeek-AI 2024, arXiv 2412.19437): experts chosen by sigmoids with a bias, in groups.

Attention is to compressed keys and values. Blocks that predict further tokens are kept, not run.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torchgguf.container import Metadata
from torchgguf.models.blocks import heads, moe, nextn, routing_rules, tables
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.latent_attention import (
    LATENT_ROWS,
    LATENT_RULES,
    LatentAttention,
    LatentConfig,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Flag, Unwritable
from torchgguf.nn import rotate, rotate_neighbours


@config_dataclass
class DeepseekV3Config(LatentConfig):
    """Fields beyond those of models with this attention, and other defaults."""

    model_type = "deepseek_v3"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "num_mtp_layers": "num_nextn_predict_layers",
    }

    vocab_size: int = 129280
    hidden_size: int = 7168
    intermediate_size: int = 18432
    moe_intermediate_size: int = 2048
    num_hidden_layers: int = 61
    num_attention_heads: int = 128
    num_key_value_heads: int | None = 128
    max_position_embeddings: int = 4096
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    n_shared_experts: int = 1
    n_routed_experts: int = 256
    routed_scaling_factor: float = 2.5
    n_group: int = 8
    topk_group: int = 4
    num_experts_per_tok: int = 8
    first_k_dense_replace: int = 3
    norm_topk_prob: bool = True
    pretraining_tp: int | None = 1
    rope_interleave: bool = True
    num_nextn_predict_layers: int = 1

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts and their groups."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)
        moe.check_groups(self.n_group, self.topk_group, self.n_routed_experts, self.num_experts_per_tok)


def _has_sigmoids(metadata: Metadata) -> bool:
    """Return whether experts are chosen by sigmoids; GLM-4.7-Flash does not state it, as llama.cpp knows."""
    stated = metadata.get(f"deepseek2.{routing_rules.GATING}", 0)
    layers, tokens = metadata.get("deepseek2.block_count"), metadata.get("deepseek2.vocab_size")
    return stated == routing_rules.SIGMOID or (not stated and layers in (47, 48) and tokens == 154880)


DEEPSEEK_V3 = Architecture(
    gguf="deepseek2",
    config_class=DeepseekV3Config,
    rules=(
        *nextn.counting_others(LATENT_RULES, counted=False),
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
        Unwritable("rope_interleave", True),
        *routing_rules.GROUPED_EXPERTS,
        Flag("expert_weights_norm", "norm_topk_prob", always=False),
        routing_rules.Gating(routing_rules.SIGMOID),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *LATENT_ROWS,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
        tables.CORRECTION,
        *nextn.NEXTN,
    ),
    matches=_has_sigmoids,
    stacks=tables.EXPERT_STACKS,
)


class DeepseekV3Model(DecoderModel, architecture=DEEPSEEK_V3):
    """DeepSeek-V3 without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: DeepseekV3Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        rotation = rotate_neighbours if config.rope_interleave else rotate
        attention = LatentAttention(config, layer_idx, rotation)
        if layer_idx < config.first_k_dense_replace:
            return DecoderLayer(config, attention, MLP(config))
        return DecoderLayer(config, attention, moe.sigmoid_experts(config))


class DeepseekV3ForCausalLM(moe.RoutedForCausalLM, base=DeepseekV3Model): ...


class DeepseekV3ForSequenceClassification(heads.ForSequenceClassification, base=DeepseekV3Model): ...


class DeepseekV3ForTokenClassification(heads.ForTokenClassification, base=DeepseekV3Model): ...
