"""Gemma 4, its text part (Google 2026): keys that several layers share, per-layer embeddings, or experts.

Layers that see all positions have heads of another size, and rotate a part of their frequencies only.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from torchgguf.container.errors import brief
from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.decoder import SandwichLayer
from torchgguf.models.blocks.gemma.layer_sizes import LayerSizes
from torchgguf.models.blocks.gemma.per_layer import PER_LAYER_ROWS, PerLayerInput, PerLayerModel
from torchgguf.models.blocks.gemma.shared_keys import (
    KeysAsValues,
    LendingAttention,
    SharedKeys,
    SharedKeysConfig,
    sharing_attention,
    wide_norm,
)
from torchgguf.models.blocks.gemma.two_rotations import ProportionalRope, TwoRotationsModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import SLIDING, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import LARGEST_HEAD, config_dataclass
from torchgguf.models.core.config_map import (
    Count,
    Field,
    Implied,
    NoneIfZero,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import ParameterRow, Row
from torchgguf.nn import FusedExperts, Gate, find_activation, unweighted_rms_norm
from torchgguf.nn.rotary import PROPORTIONAL


@config_dataclass
class Gemma4TextConfig(SharedKeysConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every sixth layer, and the last, sees all positions; its heads are of `global_head_dim` and, with
    `attention_k_eq_v`, it has `num_global_key_value_heads` and keys that are values, too. transformers states
    both sizes in `per_layer_config`, which is accepted instead. With `use_double_wide_mlp`, layers without
    keys of their own have MLPs of twice the `intermediate_size`. With `enable_moe_block`, each layer has
    experts beside its MLP.
    """

    left_out = ("hidden_act",)
    model_type = "gemma4_text"
    period = 6
    rotates_parts = True
    default_thetas: ClassVar[Mapping[str, float]] = {FULL: 1000000.0, SLIDING: 10000.0}

    vocab_size: int = 262144
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 30
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    global_head_dim: int = 512
    num_global_key_value_heads: int | None = None
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    sliding_window: int | None = 512
    final_logit_softcapping: float | None = None
    use_bidirectional_attention: str | None = None
    vocab_size_per_layer_input: int = 262144
    hidden_size_per_layer_input: int = 256
    attention_k_eq_v: bool = False
    enable_moe_block: bool = False
    use_double_wide_mlp: bool = False
    num_experts: int | None = None
    top_k_experts: int | None = None
    moe_intermediate_size: int | None = None
    per_layer_config: InitVar[dict[str | int, Any] | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Complete and check the fields, and name the activation as other decoders do."""
        *others, sizes = legacy
        if self.rope_parameters is None:
            self.rope_parameters = {FULL: {"rope_type": PROPORTIONAL, "partial_rotary_factor": 0.25}}
        super().__post_init__(*others)
        self.hidden_act = self.hidden_activation
        if sizes:
            self._read_by_layer(sizes)
        if not self.attention_k_eq_v:
            self.num_global_key_value_heads = None
        self._check()

    def _read_by_layer(self, sizes: Mapping[str | int, Any]) -> None:
        """Read what transformers states for each layer: one set of sizes for all that see all positions."""
        assert self.layer_types is not None
        full = {i for i, kind in enumerate(self.layer_types) if kind == FULL}
        first = next(iter(sizes.values()))
        names = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
        is_known = isinstance(first, dict) and first.keys() <= names.keys()
        if not is_known or {*map(int, sizes)} != full or any(each != first for each in sizes.values()):
            raise ValueError(f"per_layer_config={brief(sizes)} is not supported")
        if "num_key_value_heads" in first and not self.attention_k_eq_v:
            raise ValueError("num_key_value_heads in per_layer_config requires attention_k_eq_v=True")
        for name, field in names.items():
            if name in first:
                setattr(self, field, first[name])

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        return [*super().default_layer_types()[:-1], FULL]

    def _check(self) -> None:
        assert self.layer_types is not None
        if self.layer_types[-1] != FULL:
            raise ValueError(f"the last of layer_types must be {FULL!r}")
        size, key_heads = self.global_head_dim, self.num_global_key_value_heads
        if not 2 <= size <= LARGEST_HEAD or size % 2:
            raise ValueError(f"global_head_dim must be even and from 2 to {LARGEST_HEAD}, got {size}")
        if key_heads is not None and (key_heads < 1 or self.num_attention_heads % key_heads):
            raise ValueError(
                f"num_global_key_value_heads must be a divisor of {self.num_attention_heads}, got {key_heads}"
            )
        if self.use_bidirectional_attention not in (None, "vision"):
            raise ValueError(
                "use_bidirectional_attention must be None or 'vision', "
                f"got {self.use_bidirectional_attention!r}"
            )
        if "partial_rotary_factor" in (self.rope_parameters or {})[SLIDING]:
            raise ValueError(f"partial_rotary_factor of {SLIDING!r} is unsupported: whole heads are rotated")
        if self.enable_moe_block:
            if None in (self.num_experts, self.top_k_experts, self.moe_intermediate_size):
                raise ValueError(
                    "enable_moe_block=True requires num_experts, top_k_experts and moe_intermediate_size"
                )
            assert self.num_experts is not None and self.top_k_experts is not None
            moe.check_choices(self.top_k_experts, self.num_experts, "top_k_experts")

    def of_layer(self, layer_idx: int) -> Self:
        """Return a copy whose fields are the sizes of one layer."""
        assert self.layer_types is not None
        layer = copy.copy(self)
        if self.layer_types[layer_idx] == FULL:
            layer.head_dim = self.global_head_dim
            layer.num_key_value_heads = self.num_global_key_value_heads or self.num_key_value_heads
        if self.use_double_wide_mlp and layer_idx >= self.first_shared:
            layer.intermediate_size = 2 * self.intermediate_size
        return layer


# A dataclass keeps the default of this argument as an attribute of the class.
Gemma4TextConfig.per_layer_config = property(lambda self: None)  # type: ignore[attr-defined]


def _has_keys_as_values(tensors: Mapping[str, Any]) -> bool:
    keys = (name for name in tensors if name.endswith(".attn_k.weight"))
    return any(name.replace("attn_k", "attn_v") not in tensors for name in keys)


GEMMA4 = Architecture(
    gguf="gemma4",
    config_class=Gemma4TextConfig,
    rules=(
        Field("block_count", "num_hidden_layers", limit=tensor_count),
        Field("context_length", "max_position_embeddings"),
        Field("embedding_length", "hidden_size", limit=largest_dimension),
        Field("attention.head_count", "num_attention_heads", limit=largest_dimension),
        LayerSizes(),
        Field("attention.layer_norm_rms_epsilon", "rms_norm_eps", float),
        *tables.IMPLIED_RULES,
        SharedKeys(),
        LayerWindows(Gemma4TextConfig),
        ProportionalRope(Gemma4TextConfig),
        NoneIfZero("final_logit_softcapping", "final_logit_softcapping", float, required=False),
        Count("embedding_length_per_layer_input", "hidden_size_per_layer_input", limit=largest_dimension),
        Implied("vocab_size_per_layer_input", lambda tensors: tensors["token_embd.weight"].shape[0]),
        Implied("attention_k_eq_v", _has_keys_as_values),
        Implied("enable_moe_block", tables.in_first_layer("ffn_gate_inp.weight")),
        Field("expert_count", "num_experts", required=False, limit=largest_dimension),
        Field("expert_used_count", "top_k_experts", required=False, limit=largest_dimension),
        Field("expert_feed_forward_length", "moe_intermediate_size", required=False, limit=largest_dimension),
        Unwritable("hidden_activation", "gelu_pytorch_tanh"),
        Unwritable("attention_bias", False),
    ),
    rows=(
        *tables.STREAM,
        *PER_LAYER_ROWS,
        *tables.SANDWICH_NORMS,
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
        ParameterRow("blk.{}.layer_output_scale.weight", "layers.{}.layer_scalar"),
        Row("blk.{}.ffn_gate_inp", "layers.{}.router.proj"),
        ParameterRow("blk.{}.ffn_gate_inp.scale", "layers.{}.router.scale"),
        ParameterRow("blk.{}.ffn_down_exps.scale", "layers.{}.router.per_expert_scale"),
        Row("blk.{}.ffn_gate_up_exps", "layers.{}.experts.gate_up_proj"),
        Row("blk.{}.ffn_down_exps", "layers.{}.experts.down_proj"),
        Row("blk.{}.pre_ffw_norm_2", "layers.{}.pre_feedforward_layernorm_2"),
        Row("blk.{}.post_ffw_norm_1", "layers.{}.post_feedforward_layernorm_1"),
        Row("blk.{}.post_ffw_norm_2", "layers.{}.post_feedforward_layernorm_2"),
    ),
)


class Gemma4TextRouter(nn.Module):
    """Scores experts by the normed and scaled stream, and scales the output of each."""

    def __init__(self, config: Gemma4TextConfig) -> None:
        super().__init__()
        assert config.num_experts is not None and config.top_k_experts is not None
        self.choices, self.eps = config.top_k_experts, config.rms_norm_eps
        self.proj = Gate(config.hidden_size, config.num_experts)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.num_experts))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probabilities `(N, E)`, and weights and indices of the experts of tokens `(N, K)`."""
        normed = unweighted_rms_norm(tokens, self.eps) * self.scale.to(tokens.dtype)
        logits: Tensor = self.proj(normed * tokens.shape[-1] ** -0.5)
        weights, chosen = moe.softmax_then_choose(logits, self.choices, normalize=True)
        probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
        return probabilities, weights * self.per_expert_scale[chosen], chosen


class Gemma4TextDecoderLayer(SandwichLayer, PerLayerInput):
    """A layer that reads per-layer embeddings, if there are any, and scales the whole stream."""

    def __init__(self, config: Gemma4TextConfig, layer_idx: int) -> None:
        sizes = config.of_layer(layer_idx)
        assert config.layer_types is not None
        is_both = config.attention_k_eq_v and config.layer_types[layer_idx] == FULL
        attention = sharing_attention(sizes, layer_idx, KeysAsValues if is_both else LendingAttention)
        super().__init__(config, attention, MLP(sizes), wide_norm)
        self.layer_scalar = nn.Parameter(torch.ones(1), requires_grad=False)
        self.has_input = config.hidden_size_per_layer_input > 0
        if self.has_input:
            self.add_input(config, layer_idx)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        x = super().forward(x, step)
        if self.has_input:
            x = x + self.read_input(x, step)
        return x * self.layer_scalar.to(x.dtype)


class Gemma4TextSparseLayer(Gemma4TextDecoderLayer):
    """A layer with experts beside the MLP: norms of their own are before and after each."""

    def __init__(self, config: Gemma4TextConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        assert config.num_experts is not None and config.moe_intermediate_size is not None
        self.router = Gemma4TextRouter(config)
        self.experts: nn.Module = FusedExperts(
            config.num_experts,
            config.hidden_size,
            config.moe_intermediate_size,
            find_activation("hidden_act", config.hidden_act),
        )
        self.post_feedforward_layernorm_1 = wide_norm(config)
        self.post_feedforward_layernorm_2 = wide_norm(config)
        self.pre_feedforward_layernorm_2 = wide_norm(config)

    def branch(self, name: str, x: Tensor, step: Step, before: str | None, after: str | None) -> Tensor:
        """Return the output of the mixer, or that of the MLP and the experts together."""
        if name != self.mlp_name:
            return super().branch(name, x, step, before, after)
        mapped = self.post_feedforward_layernorm_1(super().branch(name, x, step, before, None))
        tokens = x.flatten(0, 1)
        probabilities, weights, chosen = self.router(tokens)
        step.record.add("router_logits", probabilities)
        mixed = self.experts(self.pre_feedforward_layernorm_2(tokens), chosen, weights.to(x.dtype)).view_as(x)
        assert after is not None
        output: Tensor = getattr(self, after)(mapped + self.post_feedforward_layernorm_2(mixed))
        return output


class Gemma4TextModel(PerLayerModel, TwoRotationsModel, architecture=GEMMA4):
    """Gemma 4's text part without a head."""

    output_class = MoeModelOutputWithPast

    def embedding_scale(self, config: Gemma4TextConfig) -> float:
        """Return the factor on embedded tokens."""
        return math.sqrt(config.hidden_size)

    def make_norm(self, config: Gemma4TextConfig) -> nn.Module:
        """Create the last norm."""
        return wide_norm(config)

    def head_size(self, config: Gemma4TextConfig, kind: str) -> int:
        """Return the size of a head in layers of a kind."""
        assert config.head_dim is not None
        return config.global_head_dim if kind == FULL else config.head_dim

    def make_layer(self, config: Gemma4TextConfig, layer_idx: int) -> nn.Module:
        """Make a layer with experts or without."""
        layer = Gemma4TextSparseLayer if config.enable_moe_block else Gemma4TextDecoderLayer
        return layer(config, layer_idx)


class Gemma4ForCausalLM(heads.CappedForCausalLM, moe.RoutedForCausalLM, base=Gemma4TextModel): ...
