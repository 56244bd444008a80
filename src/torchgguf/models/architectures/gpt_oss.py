"""gpt-oss (OpenAI 2025, arXiv 2508.10925): attention sinks, windows in every other layer, biased experts.

Files of the released models contain the experts in MXFP4.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.rope_rule import Rope, without_parameters
from torchgguf.models.blocks.windows import LayerTypesConfig, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Rule, Unwritable
from torchgguf.models.core.weight_map import Interleaved, Row
from torchgguf.nn import Gate, Slot, SlottedLayer
from torchgguf.nn.clamped_experts import ClampedExperts, ClampedSwiGLU

_TRUNCATE = "truncate"
_DEFAULT_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    _TRUNCATE: False,
    "original_max_position_embeddings": 4096,
}


@config_dataclass
class GptOssConfig(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every other layer, the first included, sees `sliding_window` positions. `swiglu_alpha` and `swiglu_limit`
    are those of `ClampedSwiGLU`.
    """

    model_type = "gpt_oss"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}
    default_theta = 150000.0
    period = 2

    vocab_size: int = 201088
    hidden_size: int = 2880
    intermediate_size: int = 2880
    num_hidden_layers: int = 36
    num_attention_heads: int = 64
    num_key_value_heads: int | None = 8
    head_dim: int | None = 64
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    sliding_window: int | None = 128
    attention_bias: bool = True
    num_local_experts: int = 128
    num_experts_per_tok: int = 4
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Complete `rope_parameters`, and check the number of experts."""
        _, _, older_scaling, *_ = legacy
        if self.rope_parameters is None and not older_scaling:
            self.rope_parameters = dict(_DEFAULT_ROPE)
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_local_experts)


class GptOssRope(Rope):
    """Rotary embedding whose YaRN does not truncate the ends of its ramp, for which GGUF has no key.

    llama.cpp truncates them for every model.
    """

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling."""
        fields = super().read(header)
        if fields["rope_parameters"]["rope_type"] == "yarn":
            fields["rope_parameters"][_TRUNCATE] = False
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, after a check of what has none."""
        parameters = config.rope_parameters
        if parameters["rope_type"] == "yarn" and parameters.get(_TRUNCATE, True):
            raise ValueError(
                "GGUF does not support rope_parameters['truncate']=True of gpt-oss: readers assume False"
            )
        return super().write(without_parameters(config, (_TRUNCATE,)))


class WidthOfExperts(Rule):
    """A key for the width of MLPs, which this model does not have: files state that of experts again."""

    keys = ("feed_forward_length",)

    def write(self, config: Any) -> dict[str, Any]:
        """Write the width of experts."""
        return {self.keys[0]: config.intermediate_size}


GPT_OSS = Architecture(
    gguf="gpt-oss",
    config_class=GptOssConfig,
    rules=(
        *(rule for rule in tables.COMMON_RULES if WidthOfExperts.keys[0] not in rule.keys),
        WidthOfExperts(),
        tables.ROTATED_SIZE,
        GptOssRope(),
        *tables.expert_rules("num_local_experts", size="intermediate_size"),
        LayerWindows(GptOssConfig),
        Unwritable("attention_bias", True),
        Unwritable("swiglu_alpha", ClampedSwiGLU.alpha),
        Unwritable("swiglu_limit", ClampedSwiGLU.limit),
    ),
    rows=(
        *tables.STREAM,
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        Row("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
        *tables.ATTENTION,
        Row("blk.{}.attn_sinks", "layers.{}.self_attn.sinks"),
        *tables.expert_rows(gate="router"),
    ),
    interleaved=(
        Interleaved("layers.{}.mlp.experts.gate_up_proj", ("gate_proj", "up_proj")),
        Interleaved("layers.{}.mlp.experts.down_proj", ("down_proj",)),
    ),
    states_head=True,
)


class GptOssAttention(Attention, SlottedLayer):
    """Attention with a sink for each head: one more score, of a position without a value."""

    def __init__(self, config: GptOssConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, config.window_of(layer_idx), bias=config.attention_bias)
        self.sinks = nn.Parameter(torch.empty(config.num_attention_heads))
        self.is_plain = False

    def slots(self) -> Iterable[Slot]:
        """List the sinks, which files name as a layer's weights."""
        return [Slot("sinks.weight", tuple(self._sinks().shape), self._sinks)]

    def _sinks(self) -> Tensor:
        return self.get_parameter("sinks").detach()

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the sinks."""
        super().fill("sinks", tensor)


class GptOssGate(Gate):
    """A layer that scores experts, with a bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.bias = nn.Parameter(torch.empty(out_features))

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        return F.linear(input.to(self.weight.dtype), self.weight, self.bias)

    def slots(self) -> Iterable[Slot]:
        """List the weights and the bias."""
        return [*super().slots(), Slot("bias", tuple(self.bias.shape), lambda: self.bias.detach())]

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the weights or the bias."""
        if name == "bias":
            self.bias = nn.Parameter(tensor)
        else:
            super().fill(name, tensor)


class GptOssMLP(moe.SparseMoeBlock):
    """Experts, and the router that chooses among them."""

    gate_name = "router"

    def __init__(self, config: GptOssConfig) -> None:
        experts = ClampedExperts(
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
            ClampedSwiGLU(config.swiglu_alpha, config.swiglu_limit),
        )
        router = partial(moe.choose_then_softmax, choices=config.num_experts_per_tok)
        super().__init__(experts, router)

    def make_gate(self, hidden_size: int, experts: int) -> nn.Module:
        """Create the layer that scores experts."""
        return GptOssGate(hidden_size, experts)


class GptOssModel(DecoderModel, architecture=GPT_OSS):
    """gpt-oss without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: GptOssConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with experts, and a window in every other one."""
        return DecoderLayer(config, GptOssAttention(config, layer_idx), GptOssMLP(config))

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer: sinks as weights are, biases of experts to zero."""
        super().init_weights(module)
        if isinstance(module, GptOssAttention):
            nn.init.normal_(module.get_parameter("sinks"), std=self.config.initializer_range)
        elif isinstance(module, ClampedExperts):
            nn.init.zeros_(module.gate_up_proj_bias)
            nn.init.zeros_(module.down_proj_bias)


class GptOssForCausalLM(moe.MoeForCausalLM, base=GptOssModel): ...


class GptOssForSequenceClassification(heads.ForSequenceClassification, base=GptOssModel): ...


class GptOssForTokenClassification(heads.ForTokenClassification, base=GptOssModel): ...
