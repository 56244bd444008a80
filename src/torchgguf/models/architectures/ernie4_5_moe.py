"""ERNIE 4.5 (Baidu 2025) with experts that are chosen by probabilities with a bias, and shared ones."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Count, Field, Rule, Unwritable, largest_dimension, tensor_count
from torchgguf.models.core.weight_map import OtherNames, Row
from torchgguf.nn import CorrectionBias, WideGate, rotate_neighbours


@config_dataclass
class Ernie4_5_MoeConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every `moe_layer_interval`-th layer from `moe_layer_start_index` to `moe_layer_end_index` (-1: the last
    one) has experts, others have a plain MLP of `intermediate_size`.
    """

    model_type = "ernie4_5_moe"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "num_experts": "moe_num_experts",
        "num_experts_per_tok": "moe_k",
    }
    default_theta = 500000.0

    vocab_size: int = 103424
    hidden_size: int = 2560
    intermediate_size: int = 12288
    num_hidden_layers: int = 28
    num_attention_heads: int = 20
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    use_bias: bool | None = False
    moe_intermediate_size: int = 1536
    moe_k: int = 6
    moe_num_experts: int = 64
    moe_num_shared_experts: int = 2
    moe_layer_start_index: int = 1
    moe_layer_end_index: int = -1
    moe_layer_interval: int = 1
    moe_norm_min: float = 1e-12
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in the last layer with experts, and check the number of experts and the interval."""
        super().__post_init__(*legacy)
        if self.moe_layer_end_index == -1:
            self.moe_layer_end_index = self.num_hidden_layers - 1
        moe.check_choices(self.moe_k, self.moe_num_experts)
        if self.moe_layer_interval < 1:
            raise ValueError(f"moe_layer_interval must be 1 or above, got {self.moe_layer_interval}")
        if self.tie_word_embeddings and self.use_bias:
            raise ValueError("use_bias=True is unsupported with tie_word_embeddings=True")

    def is_sparse(self, layer_idx: int) -> bool:
        """Return whether a layer has experts."""
        first, last = self.moe_layer_start_index, self.moe_layer_end_index
        return first <= layer_idx <= last and (layer_idx + 1) % self.moe_layer_interval == 0


class SharedSize(Rule):
    """The size of the shared experts together, which follows from other fields."""

    keys = ("expert_shared_feed_forward_length",)

    def write(self, config: Any) -> dict[str, Any]:
        """Write the size, unless there are no shared experts."""
        size = config.moe_intermediate_size * config.moe_num_shared_experts
        return {self.keys[0]: size} if size else {}


class LastSparseLayer(Rule):
    """GGUF has no key for the last layer with experts: readers assume the last layer."""

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse every other layer."""
        if (last := config.moe_layer_end_index) != config.num_hidden_layers - 1:
            raise ValueError(
                f"GGUF does not support moe_layer_end_index={last}: readers assume "
                f"{config.num_hidden_layers - 1}, the last layer"
            )
        return {}


ERNIE4_5_MOE = Architecture(
    gguf="ernie4_5-moe",
    config_class=Ernie4_5_MoeConfig,
    rules=(
        *tables.DECODER_RULES,
        *tables.expert_rules("moe_num_experts", "moe_k"),
        Count("expert_shared_count", "moe_num_shared_experts", limit=largest_dimension),
        SharedSize(),
        Field("interleave_moe_layer_step", "moe_layer_interval"),
        Count("leading_dense_block_count", "moe_layer_start_index", limit=tensor_count),
        LastSparseLayer(),
        Unwritable("use_bias", False),
        Unwritable("moe_norm_min", 1e-12),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
        Row("blk.{}.exp_probs_b", "layers.{}.mlp.gate.moe_statics.e_score_correction_bias"),
    ),
    stacks=tables.EXPERT_STACKS,
    other_names=OtherNames({"layers.{}.mlp.gate.moe_statics": "layers.{}.mlp.moe_statics"}),
    unread=("blk.{}.attn_output.bias",),
)


class Ernie4_5_MoeStatics(CorrectionBias):
    """The bias by which experts are chosen."""

    bias_shape = (1,)
    wide = ("e_score_correction_bias",)

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.add_bias(experts)


class Ernie4_5_MoeGate(WideGate):
    """A `WideGate` that holds the bias in a layer of its own."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.moe_statics = Ernie4_5_MoeStatics(out_features)


class Ernie4_5_MoeBlock(moe.SparseMoeBlock):
    """Experts that are chosen by probabilities with a bias, and those that all tokens share."""

    def make_gate(self, hidden_size: int, experts: int) -> nn.Module:
        """Create the layer that scores experts."""
        return Ernie4_5_MoeGate(hidden_size, experts)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and the indices of the experts of each token, `(N, K)` each."""
        gate = getattr(self.gate, "base_layer", self.gate)  # PEFT's adapters contain the layer
        assert isinstance(gate, Ernie4_5_MoeGate)
        return self.route(logits, gate.moe_statics.e_score_correction_bias[0])


class Ernie4_5_MoeModel(DecoderModel, architecture=ERNIE4_5_MOE):
    """ERNIE 4.5 with experts, without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: Ernie4_5_MoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        bias = bool(config.use_bias)
        attention = Attention(config, layer_idx, bias=bias, rotate=rotate_neighbours)
        if not config.is_sparse(layer_idx):
            return DecoderLayer(config, attention, MLP(config, bias=bias))
        experts = moe.gated_experts(config, config.moe_num_experts, config.moe_intermediate_size)
        router = partial(moe.softmax_then_choose_biased, choices=config.moe_k, least=config.moe_norm_min)
        size = config.moe_intermediate_size * config.moe_num_shared_experts
        shared = MLP(config, bias=bias, intermediate_size=size) if size else None
        return DecoderLayer(config, attention, Ernie4_5_MoeBlock(experts, router, shared_experts=shared))


class Ernie4_5_MoeForCausalLM(moe.MoeForCausalLM, base=Ernie4_5_MoeModel):
    """Predicts the next token, by a head with a bias if `use_bias` of the config states it."""

    def head_has_bias(self, config: Any) -> bool:
        """Return whether the head has a bias."""
        return bool(config.use_bias)
