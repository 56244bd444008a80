"""Kimi Linear (Moonshot AI 2025, arXiv 2510.26692): the delta rule in most layers, latent attention in some.

Nothing is rotated: the recurrence tells positions apart. Experts are DeepSeek-V3's.
"""

from collections.abc import Mapping
from dataclasses import InitVar, replace
from typing import Any, ClassVar

from torch import Tensor

from torchgguf.models.architectures.mixtral import MIXTRAL_STACKS
from torchgguf.models.blocks import latent_attention, moe, routing_rules, tables
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.gated_delta.by_channel import KimiDeltaAttention
from torchgguf.models.blocks.latent_attention import LatentAttention, LatentConfig, LatentSizes
from torchgguf.models.blocks.layer_kinds import FULL, HeadsByLayer, check_layer_types
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    RECURRENT_LAYERS,
    Count,
    Field,
    Header,
    Rule,
    Unwritable,
    largest_dimension,
)
from torchgguf.models.core.weight_map import Concatenation, OtherNames, ParameterRow, Row

_LINEAR, DENSE, SPARSE = "linear_attention", "dense", "sparse"


@config_dataclass
class KimiLinearConfig(LatentConfig):
    """Fields beyond those of models with latent attention, and other defaults.

    `layer_types` names the kind of attention of each layer, `mlp_layer_types` whether it has experts.
    Released configs state `linear_attn_config` and `first_k_dense_replace` instead, with layers from 1 on.
    """

    model_type = "kimi_linear"
    left_out = ("rope_parameters",)
    attribute_map: ClassVar[Mapping[str, str]] = {
        "max_position_embeddings": "model_max_length",
        "norm_topk_prob": "moe_renormalize",
        "n_group": "num_expert_group",
        "num_local_experts": "num_experts",
        "n_routed_experts": "num_experts",
        "num_experts_per_tok": "num_experts_per_token",
        "n_shared_experts": "num_shared_experts",
    }

    vocab_size: int = 163840
    hidden_size: int = 2304
    intermediate_size: int = 9216
    moe_intermediate_size: int = 1024
    num_hidden_layers: int = 27
    num_key_value_heads: int | None = 32
    num_shared_experts: int = 1
    routed_scaling_factor: float = 2.446
    q_lora_rank: int | None = None
    num_expert_group: int = 1
    topk_group: int = 1
    num_experts: int = 256
    num_experts_per_token: int = 8
    moe_renormalize: bool = True
    model_max_length: int = 1048576
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 163584
    eos_token_id: int | list[int] | None = 163586
    pad_token_id: int | None = 163839
    pretraining_tp: int | None = 1
    layer_types: list[str] | None = None
    mlp_layer_types: list[str] | None = None
    linear_head_dim: int = 128
    linear_num_heads: int = 32
    linear_conv_kernel_dim: int = 4
    linear_attn_config: InitVar[dict[str, Any] | None] = None
    first_k_dense_replace: InitVar[int | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace the fields of released configs, and check kinds of layers and numbers of experts."""
        *others, stated, dense = legacy
        super().__post_init__(*others)
        layers = self.num_hidden_layers
        stated = stated or {}
        self.linear_head_dim = stated.get("head_dim", self.linear_head_dim)
        self.linear_num_heads = stated.get("num_heads", self.linear_num_heads)
        self.linear_conv_kernel_dim = stated.get("short_conv_kernel_size", self.linear_conv_kernel_dim)
        if self.layer_types is None:
            full = stated.get("full_attn_layers", range(5, layers + 1, 4))
            self.layer_types = [FULL if i + 1 in full else _LINEAR for i in range(layers)]
        if self.mlp_layer_types is None:
            first = 1 if dense is None else dense
            self.mlp_layer_types = [DENSE if i < first else SPARSE for i in range(layers)]
        check_layer_types(self.layer_types, (FULL, _LINEAR), layers)
        check_layer_types(self.mlp_layer_types, (DENSE, SPARSE), layers)
        moe.check_choices(self.num_experts_per_token, self.num_experts)
        moe.check_groups(self.num_expert_group, self.topk_group, self.num_experts, self.num_experts_per_token)


class KimiSizes(LatentSizes):
    """Maps sizes of queries and keys, and the kinds of layers: those without attention have 0 heads."""

    keys = (*LatentSizes.keys, RECURRENT_LAYERS)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the sizes of expanded heads and the kinds of layers."""
        kinds = HeadsByLayer(_LINEAR).read(header)
        # Nothing depends on the second.
        ignored = ("attention.head_count_kv", "attention.value_length")
        values = {key: value for key, value in header.values.items() if key not in ignored}
        return {**kinds, **super().read(replace(header, values=values))}

    def write(self, config: Any) -> dict[str, Any]:
        """Write all sizes, and the one head that is shared for each layer that has it."""
        return {
            **super().write(config),
            "attention.head_count_kv": [int(kind == FULL) for kind in config.layer_types],
            "attention.value_length": config.head_dim,  # as llama.cpp's converter does
        }


class DenseFirst(Rule):
    """The number of layers without experts, which come first."""

    keys = ("leading_dense_block_count",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number."""
        return {"first_k_dense_replace": Count(self.keys[0], "").number(header)}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the number; refuse others after the first layer with experts."""
        kinds = config.mlp_layer_types
        first = kinds.index(SPARSE) if SPARSE in kinds else len(kinds)
        if DENSE in kinds[first:]:
            raise ValueError("GGUF does not support layers without experts after layers with experts")
        return {self.keys[0]: first}


class SameHeads(Rule):
    """The number of heads of the recurrence: readers assume that of attention."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the number."""
        return {"linear_num_heads": header.positive("attention.head_count", int)}

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse every other number."""
        if config.linear_num_heads != config.num_attention_heads:
            raise ValueError(
                f"GGUF does not support linear_num_heads={config.linear_num_heads}: readers assume "
                f"{config.num_attention_heads}, the number of heads of attention"
            )
        return {}


_MIXER, _MOE = "layers.{}.self_attn", "layers.{}.block_sparse_moe"
_IN_GATE = ("f_a_proj", "f_b_proj", "dt_bias", "A_log")
_IN_BLOCK = (
    *("gate", "gate.e_score_correction_bias", "gate_proj", "up_proj", "down_proj"),
    *(f"shared_experts.{part}_proj" for part in ("gate", "up", "down")),
)

KIMI_LINEAR = Architecture(
    gguf="kimi-linear",
    config_class=KimiLinearConfig,
    rules=(
        *tables.with_own(tables.COMMON_RULES, Field("context_length", "model_max_length"), KimiSizes()),
        Field("attention.kv_lora_rank", "kv_lora_rank", limit=largest_dimension),
        Field("ssm.conv_kernel", "linear_conv_kernel_dim", limit=largest_dimension),
        Field("kda.head_dim", "linear_head_dim", limit=largest_dimension),
        SameHeads(),
        *tables.with_own(routing_rules.GROUPED_EXPERTS, DenseFirst()),
        routing_rules.Gating(routing_rules.SIGMOID),
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
        Unwritable("moe_renormalize", True),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *latent_attention.LATENT_ROWS,
        Row("blk.{}.attn_k", f"{_MIXER}.k_proj"),
        Row("blk.{}.attn_v", f"{_MIXER}.v_proj"),
        *(Row(f"blk.{{}}.ssm_conv1d_{part}", f"{_MIXER}.conv1d.{part}") for part in "qkv"),
        *(Row(f"blk.{{}}.ssm_f_{part}", f"{_MIXER}.forget_gate.f_{part}_proj") for part in "ab"),
        *(Row(f"blk.{{}}.ssm_g_{part}", f"{_MIXER}.g_{part}_proj") for part in "ab"),
        ParameterRow("blk.{}.ssm_dt.bias", f"{_MIXER}.forget_gate.dt_bias"),
        ParameterRow("blk.{}.ssm_a", f"{_MIXER}.forget_gate.A_log"),
        Row("blk.{}.ssm_beta", f"{_MIXER}.b_proj"),
        Row("blk.{}.ssm_norm", f"{_MIXER}.o_norm"),
        *tables.GATED_MLP,
        *tables.EXPERTS,
        *tables.SHARED_EXPERTS,
        tables.CORRECTION,
    ),
    stacks=(
        *MIXTRAL_STACKS,
        Concatenation(f"{_MIXER}.conv1d.weight", tuple(f"{_MIXER}.{part}_conv1d.weight" for part in "qkv")),
    ),
    other_names=OtherNames(
        {f"{_MIXER}.forget_gate.{name}": f"{_MIXER}.{name}" for name in _IN_GATE}
        | {f"layers.{{}}.mlp.{name}": f"{_MOE}.{name}" for name in _IN_BLOCK}
    ),
)


def _not_rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x


class KimiLinearModel(DecoderModel, architecture=KIMI_LINEAR):
    """Kimi Linear without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: KimiLinearConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer of the kinds that the config states."""
        assert config.layer_types and config.mlp_layer_types
        if config.layer_types[layer_idx] == FULL:
            mixer: Any = LatentAttention(config, layer_idx, _not_rotated)
        else:
            mixer = KimiDeltaAttention(config, layer_idx)
        is_dense = config.mlp_layer_types[layer_idx] == DENSE
        return DecoderLayer(config, mixer, MLP(config) if is_dense else moe.sigmoid_experts(config))


class KimiLinearForCausalLM(moe.RoutedForCausalLM, base=KimiLinearModel): ...
