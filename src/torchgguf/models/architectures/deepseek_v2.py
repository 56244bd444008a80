"""DeepSeek-V2 (DeepSeek-AI 2024, arXiv 2405.04434): attention to compressed keys and values, and experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import nn

from torchgguf.models.blocks import heads, moe, routing_rules, tables
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
from torchgguf.models.core.config_map import Flag, Header, Rule, Unwritable
from torchgguf.nn import WideGate

_GREEDY, _GROUPED = "greedy", "group_limited_greedy"


@config_dataclass
class DeepseekV2Config(LatentConfig):
    """Fields beyond those of models with this attention, and other defaults.

    With `topk_method="group_limited_greedy"`, experts of a token come from `topk_group` of `n_group` groups.
    """

    model_type = "deepseek_v2"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_experts": "n_routed_experts"}

    vocab_size: int = 102400
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    mlp_bias: bool = False
    first_k_dense_replace: int = 0
    n_group: int | None = None
    n_routed_experts: int = 64
    n_shared_experts: int = 2
    routed_scaling_factor: float = 1.0
    topk_group: int | None = None
    topk_method: str = _GREEDY
    norm_topk_prob: bool = False
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int = 1407

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts and their groups."""
        super().__post_init__(*legacy)
        if self.topk_method not in (_GREEDY, _GROUPED):
            raise ValueError(
                f"topk_method={self.topk_method!r} is not supported; these are: {_GREEDY}, {_GROUPED}"
            )
        if self.num_experts_per_tok is not None:
            moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)
            moe.check_groups(*self.groups, self.n_routed_experts, self.num_experts_per_tok)

    @property
    def groups(self) -> tuple[int, int]:
        """The numbers of groups of experts, and of those from which experts of a token come."""
        return (self.n_group or 1, self.topk_group or 1) if self.topk_method == _GROUPED else (1, 1)


class ChoiceInGroups(Rule):
    """GGUF has no key for `topk_method`: it follows from the number of groups."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the method."""
        return {"topk_method": _GROUPED if header.get("expert_group_count", 0) > 1 else _GREEDY}

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse groups without a choice among them."""
        if (config.n_group or 1) > 1 and config.topk_method == _GREEDY:
            raise ValueError(
                f"GGUF does not support topk_method={_GREEDY!r} with n_group={config.n_group}: "
                f"readers assume {_GROUPED!r}"
            )
        return {}


DEEPSEEK_V2 = Architecture(
    gguf="deepseek2",
    config_class=DeepseekV2Config,
    rules=(
        *LATENT_RULES,
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
        Unwritable("mlp_bias", False),
        *routing_rules.GROUPED_EXPERTS,
        ChoiceInGroups(),
        Flag("expert_weights_norm", "norm_topk_prob", always=False),
        routing_rules.Gating(routing_rules.SOFTMAX),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *LATENT_ROWS,
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
    ),
    stacks=tables.EXPERT_STACKS,
)


class DeepseekV2MoeBlock(moe.SparseMoeBlock):
    """Experts that are scored in float32, and those that all tokens share."""

    def make_gate(self, hidden_size: int, experts: int) -> nn.Module:
        """Create the layer that scores experts."""
        return WideGate(hidden_size, experts)


class DeepseekV2Model(DecoderModel, architecture=DEEPSEEK_V2):
    """DeepSeek-V2 without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: DeepseekV2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        attention, bias = LatentAttention(config, layer_idx), config.mlp_bias
        if layer_idx < config.first_k_dense_replace:
            return DecoderLayer(config, attention, MLP(config, bias=bias))
        if config.num_experts_per_tok is None:
            raise ValueError("num_experts_per_tok must be a number, got None")
        groups, chosen_groups = config.groups
        router = partial(
            moe.softmax_then_choose_in_groups,
            choices=config.num_experts_per_tok,
            normalize=config.norm_topk_prob,
            scale=config.routed_scaling_factor,
            groups=groups,
            chosen_groups=chosen_groups,
        )
        experts = moe.gated_experts(config, config.n_routed_experts, config.moe_intermediate_size)
        shared = moe.shared_experts(config, bias=bias)
        return DecoderLayer(config, attention, DeepseekV2MoeBlock(experts, router, shared_experts=shared))


class DeepseekV2ForCausalLM(moe.RoutedForCausalLM, base=DeepseekV2Model): ...


class DeepseekV2ForSequenceClassification(heads.ForSequenceClassification, base=DeepseekV2Model): ...
