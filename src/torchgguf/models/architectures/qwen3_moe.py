"""Qwen3-MoE (Yang et al. 2025, arXiv 2505.09388): a Qwen3 with mixtures of experts instead of MLPs."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW, UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Assumed, Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Qwen3MoeConfig(UniformlyWindowedConfig):
    """Fields beyond those of all decoders, and other defaults.

    Layers in `mlp_only_layers`, and all except every `decoder_sparse_step`-th, use a plain MLP of
    `intermediate_size` instead of experts. With `use_sliding_window`, all layers see `sliding_window`
    positions.
    """

    model_type = "qwen3_moe"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 32768
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    decoder_sparse_step: int = 1
    moe_intermediate_size: int = 768
    num_experts_per_tok: int = 8
    num_experts: int = 128
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    mlp_only_layers: list[int] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Leave the window out unless it is in use, and check the number of experts."""
        self.mlp_only_layers = self.mlp_only_layers or []
        if not self.use_sliding_window:
            self.sliding_window = None
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)

    def is_sparse(self, layer_idx: int) -> bool:
        """Return whether a layer has experts."""
        assert self.mlp_only_layers is not None
        return layer_idx not in self.mlp_only_layers and (layer_idx + 1) % self.decoder_sparse_step == 0


QWEN3_MOE = Architecture(
    gguf="qwen3moe",
    config_class=Qwen3MoeConfig,
    rules=(
        *tables.DECODER_RULES,
        *tables.expert_rules(),
        # llama.cpp (src/models/qwen3moe.cpp) supports experts in every layer, and always normalises weights.
        Assumed("norm_topk_prob", True),
        Unwritable("attention_bias", False),
        Unwritable("decoder_sparse_step", 1),
        Unwritable("mlp_only_layers", []),
        Unwritable("use_sliding_window", False),
        NO_WINDOW,
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.QK_NORMS, *tables.EXPERTS),
    stacks=tables.EXPERT_STACKS,
)


class Qwen3MoeModel(DecoderModel, architecture=QWEN3_MOE):
    """Qwen3-MoE without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: Qwen3MoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        window, bias = config.window_of(layer_idx), config.attention_bias
        attention = Attention(config, layer_idx, window, bias=bias, qk_norm=RMSNorm)
        if not config.is_sparse(layer_idx):
            return DecoderLayer(config, attention, MLP(config))
        experts = moe.gated_experts(config, config.num_experts, config.moe_intermediate_size)
        router = partial(
            moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=config.norm_topk_prob
        )
        return DecoderLayer(config, attention, moe.SparseMoeBlock(experts, router))


class Qwen3MoeForCausalLM(moe.MoeForCausalLM, base=Qwen3MoeModel): ...


class Qwen3MoeForSequenceClassification(heads.ForSequenceClassification, base=Qwen3MoeModel): ...


class Qwen3MoeForTokenClassification(heads.ForTokenClassification, base=Qwen3MoeModel): ...


class Qwen3MoeForQuestionAnswering(heads.ForQuestionAnswering, base=Qwen3MoeModel):
    base_model_prefix = "transformer"  # the name in released checkpoints
