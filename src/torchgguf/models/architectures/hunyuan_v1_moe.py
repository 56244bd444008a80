"""Hunyuan A13B (Tencent 2025): experts that a softmax chooses, and an MLP that all tokens share."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.architectures.hunyuan_v1_dense import HunYuanAttention, HunYuanRope, with_larger_base
from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Rule, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import Gate, RotaryEmbedding


@config_dataclass
class HunYuanMoEV1Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    Experts and the MLP that tokens share are all of `intermediate_size`. `moe_topk` is the number of experts
    of a token: in all layers, or a number for each layer. `rope_parameters` as in `HunYuanDenseV1Config`.
    """

    model_type = "hunyuan_v1_moe"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "num_experts_per_tok": "moe_topk",
        "num_local_experts": "num_experts",
    }

    vocab_size: int = 290943
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    eod_token_id: int | None = 3
    sep_token_id: int | None = 4
    attention_bias: bool = False
    num_experts: int = 1
    output_router_logits: bool = False
    moe_topk: int | list[int] = 1

    def __post_init__(self, *legacy: Any) -> None:
        """Check the numbers of experts."""
        super().__post_init__(*legacy)
        if isinstance(self.moe_topk, list) and len(self.moe_topk) != self.num_hidden_layers:
            raise ValueError(f"moe_topk must be {self.num_hidden_layers} numbers, got {len(self.moe_topk)}")
        for layer_idx in range(self.num_hidden_layers):
            moe.check_choices(self.choices_of(layer_idx), self.num_experts, "moe_topk")

    def choices_of(self, layer_idx: int) -> int:
        """Return the number of experts of a token in a layer."""
        return self.moe_topk[layer_idx] if isinstance(self.moe_topk, list) else self.moe_topk


class Choices(Field):
    """The number of experts of a token, the same in all layers."""

    def write(self, config: HunYuanMoEV1Config) -> dict[str, Any]:
        """Write the number."""
        choices = {config.choices_of(i) for i in range(config.num_hidden_layers)}
        if len(choices) != 1:
            raise ValueError(f"moe_topk must be the same in all layers of a GGUF file, got {config.moe_topk}")
        return {self.key: choices.pop()}


class Sizes(Rule):
    """Sizes of experts, and of the MLP that tokens share: all are `intermediate_size`."""

    keys = ("expert_feed_forward_length", "expert_shared_feed_forward_length", "expert_shared_count")

    def write(self, config: HunYuanMoEV1Config) -> dict[str, Any]:
        """Write the sizes, and that one MLP is shared."""
        return {**dict.fromkeys(self.keys, config.intermediate_size), self.keys[2]: 1}


HUNYUAN_MOE = Architecture(
    gguf="hunyuan-moe",
    config_class=HunYuanMoEV1Config,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        HunYuanRope(),
        Field("expert_count", "num_experts", limit=largest_dimension),
        Choices("expert_used_count", "moe_topk", limit=largest_dimension),
        Sizes(),
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        Row("blk.{}.attn_q_norm", "layers.{}.self_attn.query_layernorm"),
        Row("blk.{}.attn_k_norm", "layers.{}.self_attn.key_layernorm"),
        *tables.expert_rows(gate="gate.wg"),
        *(
            Row(f"blk.{{}}.ffn_{part}_shexp", f"layers.{{}}.mlp.shared_mlp.{part}_proj")
            for part in ("gate", "up", "down")
        ),
    ),
    stacks=tables.EXPERT_STACKS,
)


class HunYuanGate(nn.Module):
    """The layer that scores experts, by the name that checkpoints have for it."""

    def __init__(self, hidden_size: int, experts: int) -> None:
        super().__init__()
        self.wg = Gate(hidden_size, experts)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, hidden_size)` to scores `(N, E)`."""
        scores: Tensor = self.wg(x)
        return scores


class HunYuanMoeBlock(moe.SparseMoeBlock):
    """Experts, and an MLP for all tokens whose output is added as it is."""

    def __init__(self, config: HunYuanMoEV1Config, layer_idx: int) -> None:
        experts = moe.gated_experts(config, config.num_experts, config.intermediate_size)
        choices = config.choices_of(layer_idx)
        super().__init__(experts, partial(moe.softmax_then_choose, choices=choices, normalize=True))
        self.shared_mlp = MLP(config)

    def make_gate(self, hidden_size: int, experts: int) -> HunYuanGate:
        """Create the layer that scores experts."""
        return HunYuanGate(hidden_size, experts)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to itself."""
        shared: Tensor = self.shared_mlp(x)
        return super().forward(x, step) + shared


class HunYuanMoEV1Model(DecoderModel, architecture=HUNYUAN_MOE):
    """Hunyuan with experts, without a head."""

    output_class = MoeModelOutputWithPast

    def make_rotary(self, config: HunYuanMoEV1Config) -> RotaryEmbedding:
        """Create the module that computes the angles."""
        assert config.rope_parameters and config.head_dim
        return RotaryEmbedding(with_larger_base(config.rope_parameters, config.head_dim), config.head_dim)

    def make_layer(self, config: HunYuanMoEV1Config, layer_idx: int) -> DecoderLayer:
        """Make a layer."""
        return DecoderLayer(config, HunYuanAttention(config, layer_idx), HunYuanMoeBlock(config, layer_idx))


class HunYuanMoEV1ForCausalLM(moe.RoutedForCausalLM, base=HunYuanMoEV1Model): ...


class HunYuanMoEV1ForSequenceClassification(heads.ForSequenceClassification, base=HunYuanMoEV1Model): ...
