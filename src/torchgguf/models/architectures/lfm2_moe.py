"""LFM2 with experts (Liquid AI 2025, arXiv 2511.23404), which are chosen by sigmoids with a bias.

The first layers have an MLP.
"""

from dataclasses import InitVar
from functools import partial
from typing import Any

from torch import Tensor, nn

from torchgguf.models.architectures.lfm2 import LFM2_ROWS, LFM2_RULES, Lfm2Layer, Lfm2MLP, Lfm2Stack
from torchgguf.models.blocks import moe, routing_rules, tables
from torchgguf.models.blocks.decoder import DecoderLayer
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.short_convolution import ShortConvolutionConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Count, Unwritable, tensor_count
from torchgguf.models.core.weight_map import Row, Stack
from torchgguf.nn import CorrectionBias, Experts


@config_dataclass
class Lfm2MoeConfig(ShortConvolutionConfig):
    """Fields beyond those of all models with short convolutions, and other defaults.

    The first `num_dense_layers` layers use an MLP of `intermediate_size` instead of experts.
    """

    model_type = "lfm2_moe"

    hidden_size: int = 2048
    intermediate_size: int = 7168
    moe_intermediate_size: int = 1792
    num_dense_layers: int = 2
    num_experts_per_tok: int = 4
    output_router_logits: bool = False
    num_experts: int = 32
    use_expert_bias: bool = True
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = True
    tie_embedding: InitVar[bool | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace the field of older configs, and check the number of experts."""
        *others, tied = legacy
        if tied is not None:
            self.tie_word_embeddings = tied
        super().__post_init__(*others)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


_EXPERTS = "layers.{}.feed_forward.experts"

LFM2_MOE = Architecture(
    gguf="lfm2moe",
    config_class=Lfm2MoeConfig,
    rules=(
        *LFM2_RULES,
        *tables.expert_rules(),
        Count("leading_dense_block_count", "num_dense_layers", required=False, limit=tensor_count),
        routing_rules.Gating(routing_rules.SIGMOID),
        Unwritable("use_expert_bias", True),
        Unwritable("norm_topk_prob", True),
        Unwritable("routed_scaling_factor", 1.0),
    ),
    rows=(
        *LFM2_ROWS,
        *tables.expert_rows("feed_forward"),
        Row("blk.{}.exp_probs_b", "layers.{}.feed_forward.expert_bias"),
    ),
    stacks=(
        Stack(f"{_EXPERTS}.gate_up_proj", (f"{_EXPERTS}.{{}}.w1.weight", f"{_EXPERTS}.{{}}.w3.weight")),
        Stack(f"{_EXPERTS}.down_proj", (f"{_EXPERTS}.{{}}.w2.weight",)),
    ),
)


class Lfm2MoeBlock(moe.SparseMoeBlock):
    """Experts that are chosen by scores."""

    layer_name = "feed_forward"


class Lfm2CorrectedMoeBlock(CorrectionBias, Lfm2MoeBlock):
    """Experts that are chosen by scores with a bias, which belongs to the block."""

    bias_name = "expert_bias"
    wide = (bias_name,)
    expert_bias: nn.Parameter

    def __init__(self, experts: Experts, router: moe.Router) -> None:
        super().__init__(experts, router)
        self.add_bias(experts.sizes[0])

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and the indices of the experts of each token, `(N, K)` each."""
        return self.route(logits, self.expert_bias)


class Lfm2MoeModel(Lfm2Stack, architecture=LFM2_MOE):
    """LFM2 with experts, without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: Lfm2MoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer of the kind that the config states, with or without experts."""
        if layer_idx < config.num_dense_layers:
            return Lfm2Layer(config, layer_idx, Lfm2MLP(config))
        router = partial(
            moe.sigmoid_then_choose,
            choices=config.num_experts_per_tok,
            normalize=config.norm_topk_prob,
            scale=config.routed_scaling_factor,
            added=1e-6,
        )
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        block = Lfm2CorrectedMoeBlock if config.use_expert_bias else Lfm2MoeBlock
        return Lfm2Layer(config, layer_idx, block(experts, router))


class Lfm2MoeForCausalLM(moe.RoutedForCausalLM, base=Lfm2MoeModel): ...
