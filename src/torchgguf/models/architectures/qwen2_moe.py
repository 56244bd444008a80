"""Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): a Qwen2 with mixtures of experts instead of MLPs.

Each token passes through a few experts that a router chooses, and through one that all tokens share.
"""

from functools import partial
from typing import Any

from torchgguf.models.architectures.qwen2 import Qwen2Config
from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW, SLIDING
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Implied, Unwritable, largest_dimension
from torchgguf.nn import Experts


@config_dataclass
class Qwen2MoeConfig(Qwen2Config):
    """Fields beyond those of Qwen2, and other defaults.

    Layers in `mlp_only_layers`, and all except every `decoder_sparse_step`-th, use a plain MLP of
    `intermediate_size` instead of experts. With `use_sliding_window`, layers 0, 2, 4, … below
    `max_window_layers` see `sliding_window` positions.
    """

    model_type = "qwen2_moe"

    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    decoder_sparse_step: int = 1
    moe_intermediate_size: int = 1408
    shared_expert_intermediate_size: int = 5632
    num_experts_per_tok: int = 4
    num_experts: int = 60
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    mlp_only_layers: list[int] | None = None
    qkv_bias: bool = True

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in the windows of layers, and check the number of experts."""
        self.mlp_only_layers = self.mlp_only_layers or []
        # Each layer looks for its number in the list.
        if len(self.mlp_only_layers) > self.num_hidden_layers or self.decoder_sparse_step < 1:
            raise ValueError(
                f"mlp_only_layers must name at most {self.num_hidden_layers} layers, and decoder_sparse_step "
                f"must be 1 or above, got {len(self.mlp_only_layers)} layers and {self.decoder_sparse_step}"
            )
        if self.layer_types is None and self.use_sliding_window:
            windowed = range(0, min(self.max_window_layers, self.num_hidden_layers), 2)
            self.layer_types = [SLIDING if i in windowed else FULL for i in range(self.num_hidden_layers)]
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)

    def is_sparse(self, layer_idx: int) -> bool:
        """Return whether a layer has experts."""
        assert self.mlp_only_layers is not None
        return layer_idx not in self.mlp_only_layers and (layer_idx + 1) % self.decoder_sparse_step == 0


QWEN2_MOE = Architecture(
    gguf="qwen2moe",
    config_class=Qwen2MoeConfig,
    rules=(
        *tables.DECODER_RULES,
        *tables.expert_rules(),
        # The first files of this architecture store neither size.
        Field(
            "expert_shared_feed_forward_length",
            "shared_expert_intermediate_size",
            required=False,
            limit=largest_dimension,
        ),
        Implied(
            "shared_expert_intermediate_size", lambda tensors: tensors["blk.0.ffn_gate_shexp.weight"].shape[0]
        ),
        Implied("qkv_bias", lambda tensors: "blk.0.attn_q.bias" in tensors),
        # llama.cpp (src/models/qwen2moe.cpp) supports experts in every layer, without normalised weights and
        # without windows.
        Unwritable("norm_topk_prob", False),
        Unwritable("decoder_sparse_step", 1),
        Unwritable("mlp_only_layers", []),
        Unwritable("use_sliding_window", False),
        NO_WINDOW,
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        *tables.EXPERTS,
        *tables.SHARED_EXPERT,
    ),
    stacks=tables.EXPERT_STACKS,
    states_head=True,
)


class Qwen2MoeModel(DecoderModel, architecture=QWEN2_MOE):
    """Qwen2-MoE without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: Qwen2MoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        window = config.window_of(layer_idx)
        attention = Attention(config, layer_idx, window, bias=config.qkv_bias, output_bias=False)
        if not config.is_sparse(layer_idx):
            return DecoderLayer(config, attention, MLP(config))
        shared = MLP(config, intermediate_size=config.shared_expert_intermediate_size)
        experts = Experts(config.num_experts, config.hidden_size, config.moe_intermediate_size, shared.act_fn)
        router = partial(
            moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=config.norm_topk_prob
        )
        return DecoderLayer(config, attention, moe.SparseMoeBlock(experts, router, shared))


class Qwen2MoeForCausalLM(moe.MoeForCausalLM, base=Qwen2MoeModel): ...


class Qwen2MoeForSequenceClassification(heads.ForSequenceClassification, base=Qwen2MoeModel): ...


class Qwen2MoeForTokenClassification(heads.ForTokenClassification, base=Qwen2MoeModel): ...


class Qwen2MoeForQuestionAnswering(heads.ForQuestionAnswering, base=Qwen2MoeModel): ...
