"""dots.llm1 (rednote 2025, arXiv 2506.05767): experts chosen by sigmoids with a bias, and shared experts."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torchgguf.models.blocks import moe, routing_rules, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW, SLIDING, LayerTypesConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Flag, Header, Rule, Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Dots1Config(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    The first `first_k_dense_replace` layers use a plain MLP of `intermediate_size` instead of experts. Layers
    from `max_window_layers` on see `sliding_window` positions.
    """

    model_type = "dots1"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_local_experts": "n_routed_experts"}

    vocab_size: int = 152064
    hidden_size: int = 4608
    intermediate_size: int = 10944
    num_hidden_layers: int = 62
    num_key_value_heads: int | None = 32
    attention_bias: bool = False
    moe_intermediate_size: int = 1408
    n_shared_experts: int | None = None
    n_routed_experts: int | None = None
    num_experts_per_tok: int | None = None
    output_router_logits: bool = False
    n_group: int | None = 1
    topk_group: int | None = 1
    first_k_dense_replace: int | None = 0
    norm_topk_prob: bool | None = False
    routed_scaling_factor: float = 1.0
    max_window_layers: int | None = 62

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts and their groups."""
        super().__post_init__(*legacy)
        if self.n_routed_experts is not None and self.num_experts_per_tok is not None:
            moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)
            groups, chosen = self.n_group or 1, self.topk_group or 1
            moe.check_groups(groups, chosen, self.n_routed_experts, self.num_experts_per_tok)

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        full = self.num_hidden_layers if self.sliding_window is None else self.max_window_layers or 0
        return [FULL if i < full else SLIDING for i in range(self.num_hidden_layers)]


class NoLayerWithWindow(Rule):
    """GGUF has no windows for this model."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return that there is no window."""
        return {"sliding_window": None}

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse windows."""
        if any(config.windows):
            raise ValueError("GGUF does not support layers with a window for this model")
        return {}


DOTS1 = Architecture(
    gguf="dots1",
    config_class=Dots1Config,
    rules=(
        *tables.DECODER_RULES,
        *routing_rules.GROUPED_EXPERTS,
        Flag("expert_weights_norm", "norm_topk_prob"),
        routing_rules.Gating(routing_rules.SIGMOID),
        NO_WINDOW,
        NoLayerWithWindow(),
        Unwritable("attention_bias", False),
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
    ),
    stacks=tables.EXPERT_STACKS,
    states_head=True,
)


class Dots1Model(DecoderModel, architecture=DOTS1):
    """dots.llm1 without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: Dots1Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without experts."""
        window, bias = config.window_of(layer_idx), config.attention_bias
        attention = Attention(config, layer_idx, window, bias=bias, qk_norm=RMSNorm)
        if layer_idx < (config.first_k_dense_replace or 0):
            return DecoderLayer(config, attention, MLP(config))
        return DecoderLayer(config, attention, moe.sigmoid_experts(config))


class Dots1ForCausalLM(moe.RoutedForCausalLM, base=Dots1Model): ...
