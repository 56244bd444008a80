"""Nemotron-H (NVIDIA 2025, arXiv 2504.03624), Nemotron Nano 2 and Nemotron 3.

A layer is one of these alone: a Mamba 2 mixer, attention without rotation, an MLP_ALONE, or experts. MLPs and
experts have a squared ReLU and no gate.
"""

import math
from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

from torch import nn

from torchgguf.models.blocks import moe, nextn, routing_rules, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel, NormNames
from torchgguf.models.blocks.layer_kinds import FULL, LINEAR, check_layer_types
from torchgguf.models.blocks.mamba2 import Mamba2Mixer, Mamba2Options, mamba2_rows, mamba2_rules
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.single_mixers import EXPERTS_ALONE, MLP_ALONE, MixerKinds
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    RECURRENT_LAYERS,
    Count,
    Field,
    Flag,
    Harmless,
    Implied,
    Rule,
    Unwritable,
    largest_dimension as largest,
)
from torchgguf.models.core.weight_map import INTERLEAVED_HEADS, OtherNames, Row, Stack
from torchgguf.nn import WideRMSNorm

# What released configs call the kinds of layers.
_LETTERS = {"M": LINEAR, "E": EXPERTS_ALONE, "*": FULL, "-": MLP_ALONE}
_OLDER = {"mamba": LINEAR, "attention": FULL}


@config_dataclass
class NemotronHConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    `layers_block_type` names the kind of each layer; older configs have the letters of a
    `hybrid_override_pattern` instead. `moe_latent_size` is the size that experts read and write; None: that
    of the stream.
    """

    model_type = "nemotron_h"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "layer_types": "layers_block_type",
        "num_local_experts": "n_routed_experts",
        "mamba_n_groups": "n_groups",
        "mamba_d_conv": "conv_kernel",
        "mamba_expand": "expand",
        "mamba_dt_min": "time_step_min",
        "mamba_dt_max": "time_step_max",
        "mamba_dt_limit": "time_step_limit",
        "mamba_dt_init_floor": "time_step_floor",
        "mamba_conv_bias": "use_conv_bias",
        "mamba_chunk_size": "chunk_size",
    }
    left_out = ("num_hidden_layers", "rms_norm_eps", "hidden_act", "rope_parameters")

    vocab_size: int = 131072
    layers_block_type: list[str] | None = None
    num_logits_to_keep: int = 1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    num_key_value_heads: int | None = 8
    head_dim: int | None = 128
    max_position_embeddings: int = 4096
    attention_bias: bool = False
    sliding_window: int | None = None
    intermediate_size: int = 21504
    mlp_hidden_act: str = "relu2"
    mlp_bias: bool = False
    use_mamba_kernels: bool = True
    ssm_state_size: int = 128
    mamba_num_heads: int = 128
    mamba_head_dim: int = 64
    mamba_hidden_act: str = "silu"
    n_groups: int = 8
    conv_kernel: int = 4
    expand: int = 2
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_limit: list[float] | tuple[float, ...] = (0.0, math.inf)
    time_step_floor: float = 1e-4
    use_conv_bias: bool = True
    chunk_size: int = 128
    mamba_proj_bias: bool = False
    mamba_ssm_cache_dtype: str = "float32"
    n_routed_experts: int = 8
    output_router_logits: bool = False
    n_shared_experts: int = 1
    moe_intermediate_size: int = 7688
    moe_shared_expert_intermediate_size: int = 7688
    moe_latent_size: int | None = None
    moe_shared_expert_overlap: bool = True
    num_experts_per_tok: int = 2
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    num_nextn_predict_layers: int = 0
    mtp_layers_block_type: list[str] | None = None
    use_bias: bool = False
    layer_norm_epsilon: float = 1e-5
    residual_in_fp32: bool = False
    hidden_dropout: float = 0.0
    rescale_prenorm_residual: bool = True
    hybrid_override_pattern: InitVar[str | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace older names of the kinds of layers, and check them and the experts."""
        *others, pattern = legacy
        if self.layers_block_type is None:
            letters = "ME*-" if pattern is None else pattern
            self.layers_block_type = [_LETTERS.get(letter, letter) for letter in letters]
        self.layers_block_type = [_OLDER.get(kind, kind) for kind in self.layers_block_type]
        self.mtp_layers_block_type = [
            _OLDER.get(kind, kind) for kind in self.mtp_layers_block_type or (FULL, EXPERTS_ALONE)
        ]
        self.time_step_limit = [*self.time_step_limit]
        self.num_hidden_layers = len(self.layers_block_type)
        self.hidden_act = self.mlp_hidden_act
        super().__post_init__(*others)
        check_layer_types(self.layers_block_type, _LETTERS.values(), self.num_hidden_layers)
        if self.has_experts:
            moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)
            moe.check_groups(self.n_group, self.topk_group, self.n_routed_experts, self.num_experts_per_tok)

    @property
    def has_experts(self) -> bool:
        """Whether there are layers of experts."""
        return EXPERTS_ALONE in (self.layers_block_type or ())


_MIXER = "layers.{}.mixer"


class Unrotated(Rule):
    """Keys of rotary embedding, which files state although there is none."""

    keys = ("rope.dimension_count", "rope.scaling.finetuned")

    def write(self, config: Any) -> dict[str, Any]:
        """Write what llama.cpp's converter does."""
        size, finetuned = self.keys
        return {size: config.hidden_size // config.num_attention_heads, finetuned: False}


NEMOTRON_H = Architecture(
    gguf="nemotron_h",
    other_ggufs={"nemotron_h_moe": lambda config: config.has_experts},
    config_class=NemotronHConfig,
    rules=(
        *tables.with_own(nextn.counting_others(tables.SIZE_RULES, counted=False), MixerKinds()),
        tables.layer_norm_epsilon("layer_norm_epsilon"),
        # Older files state the same number under this key, too.
        Field("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", float, required=False),
        Unrotated(),
        Harmless((RECURRENT_LAYERS,)),  # readers know them by the other numbers
        Implied("attention_bias", lambda tensors: any(name.endswith("attn_q.bias") for name in tensors)),
        *mamba2_rules("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel"),
        Unwritable("mlp_hidden_act", "relu2"),
        Unwritable("mamba_hidden_act", "silu"),
        Unwritable("use_bias", False),
        Implied("mlp_bias", lambda tensors: any(name.endswith("ffn_up.bias") for name in tensors)),
        Implied("use_conv_bias", lambda tensors: any(name.endswith("ssm_conv1d.bias") for name in tensors)),
        routing_rules.WithExperts(
            (
                *tables.expert_rules("n_routed_experts"),
                routing_rules.Groups(),
                routing_rules.WeightScale(),
                Count("expert_shared_count", "n_shared_experts", limit=largest),
                Field(
                    "expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size", limit=largest
                ),
                Flag("expert_weights_norm", "norm_topk_prob"),
                Field("moe_latent_size", "moe_latent_size", required=False, limit=largest),
                Harmless((routing_rules.GATING,)),
                Unwritable("mlp_bias", False),
            ),
            lambda config: config.has_experts,
        ),
    ),
    rows=(
        Row("token_embd", "embeddings"),
        Row("output_norm", "norm_f"),
        tables.STREAM[2],
        Row("blk.{}.attn_norm", "layers.{}.norm"),
        *mamba2_rows("mixer"),
        # In the order for a rotation that there is not: the converter's, as it is Granite's.
        Row("blk.{}.attn_q", f"{_MIXER}.q_proj", INTERLEAVED_HEADS),
        Row("blk.{}.attn_k", f"{_MIXER}.k_proj", INTERLEAVED_HEADS),
        *(
            Row(f"blk.{{}}.{gguf}", f"{_MIXER}.{hf}")
            for gguf, hf in (
                ("attn_v", "v_proj"),
                ("attn_output", "o_proj"),
                ("ffn_up", "up_proj"),
                ("ffn_down", "down_proj"),
                ("ffn_gate_inp", "gate"),
                ("exp_probs_b", "gate.e_score_correction_bias"),
                ("ffn_latent_down", "fc1_latent_proj"),
                ("ffn_latent_up", "fc2_latent_proj"),
                ("ffn_up_exps", "experts.up_proj"),
                ("ffn_down_exps", "experts.down_proj"),
                ("ffn_up_shexp", "shared_experts.up_proj"),
                ("ffn_down_shexp", "shared_experts.down_proj"),
            )
        ),
        *nextn.NEXTN,
        Row("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),  # of the same layers
    ),
    stacks=tuple(
        Stack(f"{_MIXER}.experts.{part}_proj", (f"{_MIXER}.experts.{{}}.{part}_proj.weight",))
        for part in ("up", "down")
    ),
    other_names=OtherNames({}, prefix="backbone"),
    unused=("mtp.",),
    scales_biases=True,
)


class MixerAttention(Attention):
    """Attention as the one part of a layer."""

    layer_name = "mixer"


class MixerMLP(PlainMLP):
    """An MLP as the one part of a layer."""

    layer_name = "mixer"


class MixerExperts(moe.LatentMoeBlock):
    """Experts as the one part of a layer."""

    layer_name = "mixer"


def _norm(config: Any) -> nn.Module:
    return WideRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)


class NemotronHLayer(DecoderLayer):
    """A layer of one part behind one norm."""

    norm_names = NormNames("norm", before_mlp=None)


def _experts(config: NemotronHConfig) -> MixerExperts:
    shared = PlainMLP(
        config, bias=config.mlp_bias, intermediate_size=config.moe_shared_expert_intermediate_size
    )
    return MixerExperts(config, shared)


class NemotronHModel(DecoderModel, architecture=NEMOTRON_H):
    """Nemotron-H without a head."""

    embedding_name = "embeddings"
    norm_name = "norm_f"
    output_class = MoeModelOutputWithPast
    argument_order = ("input_ids", "inputs_embeds", "position_ids", "cache", "use_cache", "attention_mask")

    def untrained_row(self, config: Any) -> None:
        """Return None: all embeddings are trained."""

    def make_rotary(self, config: Any) -> None:
        """Return None: nothing is rotated."""

    def make_layer(self, config: NemotronHConfig, layer_idx: int) -> NemotronHLayer:
        """Make a layer of the kind that the config states."""
        assert config.layers_block_type is not None
        kind = config.layers_block_type[layer_idx]
        mixer: nn.Module
        if kind == LINEAR:
            mixer = Mamba2Mixer(config.hidden_size, layer_idx, _mamba_options(config))
        elif kind == FULL:
            mixer = MixerAttention(config, layer_idx, bias=config.attention_bias, rotation=None)
        elif kind == MLP_ALONE:
            mixer = MixerMLP(config, bias=config.mlp_bias)
        else:
            mixer = _experts(config)
        return NemotronHLayer(config, mixer, None, _norm)

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return _norm(config)


def _mamba_options(config: NemotronHConfig) -> Mamba2Options:
    return Mamba2Options(
        config.mamba_num_heads,
        config.mamba_head_dim,
        config.n_groups,
        config.ssm_state_size,
        config.conv_kernel,
        config.layer_norm_epsilon,
        config.mamba_hidden_act,
        config.use_conv_bias,
        config.use_bias,
        (config.time_step_min, math.inf),
        (config.time_step_min, config.time_step_max, config.time_step_floor),
    )


class NemotronHForCausalLM(moe.RoutedForCausalLM, base=NemotronHModel):
    """Predicts the next token."""

    argument_order = ("input_ids", "attention_mask", "position_ids", "cache", "inputs_embeds", "labels")
