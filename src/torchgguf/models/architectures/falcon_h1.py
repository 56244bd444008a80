"""Falcon-H1 (TII 2025, arXiv 2507.22448): attention and a Mamba 2 mixer side by side, and many multipliers.

GGUF files contain weights with the multipliers in them.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel, NormNames
from torchgguf.models.blocks.mamba2 import (
    UNLIMITED_STEPS,
    Mamba2Mixer,
    Mamba2Options,
    mamba2_rows,
    mamba2_rules,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import RECURRENT_LAYERS, Assumed, Harmless, Implied, Rule, Unwritable
from torchgguf.models.core.weight_map import HEAD, ParameterRow, Row, Scaling
from torchgguf.nn import GatedGroupRMSNorm, Linear
from torchgguf.nn.gated_norm import GateAlone, GroupRMSNormThenGate


@config_dataclass
class FalconH1Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    `mlp_multipliers` apply to the gate and to the output of the MLP, `ssm_multipliers` to the five parts that
    a mixer projects the stream to: gates, inputs, B, C and step sizes.
    """

    model_type = "falcon_h1"

    vocab_size: int = 128000
    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    rms_norm_eps: float = 1e-5
    num_logits_to_keep: int | None = 1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    max_position_embeddings: int = 8192
    mamba_d_ssm: int | None = 1024
    mamba_n_heads: int = 128
    mamba_d_head: int | str = "auto"
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_chunk_size: int = 256
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    mamba_norm_before_gate: bool = True
    mamba_rms_norm: bool = False
    time_step_limit: list[float] | tuple[float, ...] | None = (0.0, math.inf)
    projectors_bias: bool = False
    lm_head_multiplier: float = 1.0
    embedding_multiplier: float = 1.0
    mlp_multipliers: list[float] | None = None
    key_multiplier: float = 1.0
    attention_out_multiplier: float = 1.0
    attention_in_multiplier: float = 1.0
    ssm_multipliers: list[float] | None = None
    ssm_in_multiplier: float = 1.0
    ssm_out_multiplier: float = 1.0
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Set what follows from other fields, and check the sizes of mixers."""
        super().__post_init__(*legacy)
        self.mlp_multipliers = self.mlp_multipliers or [1.0] * 2
        self.ssm_multipliers = self.ssm_multipliers or [1.0] * 5
        if (len(self.mlp_multipliers), len(self.ssm_multipliers)) != (2, 5):
            raise ValueError("there must be 2 mlp_multipliers and 5 ssm_multipliers")
        size = self.mamba_d_ssm or self.mamba_expand * self.hidden_size
        if self.mamba_d_head == "auto":
            self.mamba_d_head = size // self.mamba_n_heads
        if self.mamba_d_head * self.mamba_n_heads != size:
            raise ValueError(
                f"mamba_n_heads times mamba_d_head must be mamba_d_ssm={size}, got {self.mamba_n_heads} and "
                f"{self.mamba_d_head}"
            )
        self.time_step_limit = [*(self.time_step_limit or (0.0, math.inf))]

    @property
    def mixer_size(self) -> int:
        """The size of all heads of a mixer together."""
        assert isinstance(self.mamba_d_head, int)
        return self.mamba_n_heads * self.mamba_d_head

    @property
    def mixer_parts(self) -> list[int]:
        """The sizes of the five parts that a mixer projects the stream to."""
        shared = self.mamba_n_groups * self.mamba_d_state
        return [self.mixer_size, self.mixer_size, shared, shared, self.mamba_n_heads]


class MixerSize(Rule):
    """`mamba_d_ssm`, which is the size of all heads together."""

    keys = ("ssm.inner_size",)

    def read(self, header: Any) -> dict[str, Any]:
        """Read the size."""
        return {"mamba_d_ssm": header.positive(self.keys[0], int)}


class TiedMultipliers(Rule):
    """Refuses multipliers of the head beside others of the embedding that it shares."""

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse a config."""
        if config.tie_word_embeddings and config.embedding_multiplier != config.lm_head_multiplier:
            raise ValueError(
                "GGUF does not support embedding_multiplier beside another lm_head_multiplier in tied weights"
            )
        return {}


def _of_mixer(config: FalconH1Config) -> list[float | Tensor]:
    """Return the factors on rows of a mixer's first projection."""
    factors = config.ssm_multipliers
    assert factors is not None
    if all(factor == 1.0 for factor in factors):
        return [config.ssm_in_multiplier]
    each = torch.tensor(factors).repeat_interleave(torch.tensor(config.mixer_parts))
    return [config.ssm_in_multiplier, each]


# The modules of a layer whose weights files contain with multipliers, and which.
_SCALED = {
    "self_attn.q_proj": lambda config: [config.attention_in_multiplier],
    "self_attn.k_proj": lambda config: [config.key_multiplier, config.attention_in_multiplier],
    "self_attn.v_proj": lambda config: [config.attention_in_multiplier],
    "self_attn.o_proj": lambda config: [config.attention_out_multiplier],
    "feed_forward.gate_proj": lambda config: config.mlp_multipliers[:1],
    "feed_forward.down_proj": lambda config: config.mlp_multipliers[1:],
    "mamba.in_proj": _of_mixer,
    "mamba.out_proj": lambda config: [config.ssm_out_multiplier],
}


def _row(gguf: str, module: str) -> Row:
    factors = _SCALED.get(module)
    return Row(f"blk.{{}}.{gguf}", f"layers.{{}}.{module}", None if factors is None else Scaling(factors))


_MIXER_MODULES = {"ssm_in": "mamba.in_proj", "ssm_out": "mamba.out_proj"}

FALCON_H1 = Architecture(
    gguf="falcon-h1",
    config_class=FalconH1Config,
    rules=(
        *tables.DECODER_RULES,
        *mamba2_rules("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv"),
        MixerSize(),
        Harmless((RECURRENT_LAYERS,)),  # all are
        UNLIMITED_STEPS,
        TiedMultipliers(),
        Implied("mamba_conv_bias", lambda tensors: "blk.0.ssm_conv1d.bias" in tensors),
        Implied("mamba_rms_norm", lambda tensors: "blk.0.ssm_norm.weight" in tensors),
        Implied("mlp_bias", lambda tensors: "blk.0.ffn_gate.bias" in tensors),
        Assumed("mamba_norm_before_gate", False),
        Unwritable("attention_bias", False),
        Unwritable("mamba_proj_bias", False),
        Unwritable("projectors_bias", False),
    ),
    rows=(
        Row("token_embd", "embed_tokens", Scaling(lambda config: [config.embedding_multiplier])),
        Row("output_norm", "final_layernorm"),
        Row("output", HEAD, Scaling(lambda config: [config.lm_head_multiplier])),
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        ParameterRow("blk.{}.ffn_norm", "layers.{}.pre_ff_layernorm.weight"),
        *(row for row in mamba2_rows("mamba") if row.gguf.removeprefix("blk.{}.") not in _MIXER_MODULES),
        *(_row(gguf, module) for gguf, module in _MIXER_MODULES.items()),
        *(_row(f"attn_{name}", f"self_attn.{name}_proj") for name in ("q", "k", "v")),
        _row("attn_output", "self_attn.o_proj"),
        *(_row(f"ffn_{name}", f"feed_forward.{name}_proj") for name in ("gate", "up", "down")),
    ),
    unread=("blk.{}.attn_output.bias",),
)


class FalconH1Attention(Attention):
    """Attention with a multiplier on keys."""

    def __init__(self, config: FalconH1Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.attention_bias)
        self.key_multiplier = config.key_multiplier

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, as `Attention.project`."""
        query, key, value = super().project(x)
        return query, key * self.key_multiplier, value


class FalconH1MLP(MLP):
    """The gated MLP with multipliers on its gate and on its output."""

    layer_name = "feed_forward"

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__(config, bias=config.mlp_bias)
        assert config.mlp_multipliers is not None
        self.gate_multiplier, self.down_multiplier = config.mlp_multipliers

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate and up, as `MLP.project`."""
        gate, up = super().project(x)
        return gate * self.gate_multiplier, up

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        return super().forward(x, step) * self.down_multiplier


class FalconH1Mixer(Mamba2Mixer):
    """A mixer with multipliers on the stream and on what it is projected to."""

    layer_name = "mamba"

    def __init__(self, config: FalconH1Config, layer_idx: int) -> None:
        assert isinstance(config.mamba_d_head, int)
        assert config.time_step_limit is not None
        least, largest = config.time_step_limit
        options = Mamba2Options(
            config.mamba_n_heads,
            config.mamba_d_head,
            config.mamba_n_groups,
            config.mamba_d_state,
            config.mamba_d_conv,
            config.rms_norm_eps,
            config.hidden_act,
            config.mamba_conv_bias,
            config.mamba_proj_bias,
            (least, largest),
        )
        super().__init__(config.hidden_size, layer_idx, options)
        self.out_proj = Linear(options.size, config.hidden_size, bias=config.projectors_bias)
        norm = GroupRMSNormThenGate if config.mamba_norm_before_gate else GatedGroupRMSNorm
        self.norm = norm(options.size, options.groups, options.eps) if config.mamba_rms_norm else GateAlone()
        self.in_multiplier = config.ssm_in_multiplier
        self.multipliers = config.ssm_multipliers
        self.scaled_parts = config.mixer_parts
        self.is_scaled = any(factor != 1.0 for factor in config.ssm_multipliers or ())

    def project(self, x: Tensor) -> Tensor:
        """Map the stream to what the mixer consists of, as `Mamba2Mixer.project`."""
        projected = super().project(x * self.in_multiplier)
        if not self.is_scaled:
            return projected
        parts = projected.split(self.scaled_parts, dim=-1)
        return torch.cat([part * x for part, x in zip(parts, self.multipliers or (), strict=True)], dim=-1)


class FalconH1Layer(DecoderLayer):
    """A layer whose attention and mixer both read the stream by one norm, and an MLP after them."""

    norm_names = NormNames("input_layernorm", None, "pre_ff_layernorm", None)

    def __init__(self, config: FalconH1Config, layer_idx: int) -> None:
        super().__init__(config, FalconH1Attention(config, layer_idx), FalconH1MLP(config))
        self.mamba = FalconH1Mixer(config, layer_idx)
        self.in_multiplier = config.attention_in_multiplier
        self.out_multiplier = config.attention_out_multiplier
        self.mixer_multiplier = config.ssm_out_multiplier

    def branch(self, name: str, x: Tensor, step: Step, before: str | None, after: str | None) -> Tensor:
        """Return the output of attention and mixer together, or of the MLP."""
        if name != self.mixer_name or before is None:
            return super().branch(name, x, step, before, after)
        normed = getattr(self, before)(x)
        attended: Tensor = getattr(self, name)(normed * self.in_multiplier, step)
        mixed: Tensor = self.mamba(normed, step)
        return mixed * self.mixer_multiplier + attended * self.out_multiplier


class FalconH1Model(DecoderModel, architecture=FALCON_H1):
    """Falcon-H1 without a head."""

    norm_name = "final_layernorm"

    def embedding_scale(self, config: FalconH1Config) -> float:
        """Return the factor on embedded tokens."""
        return config.embedding_multiplier

    def make_layer(self, config: FalconH1Config, layer_idx: int) -> nn.Module:
        """Make a layer."""
        return FalconH1Layer(config, layer_idx)


class FalconH1ForCausalLM(heads.ForCausalLM, base=FalconH1Model):
    """Predicts the next token; logits are multiplied by `lm_head_multiplier` of the config."""

    def score(self, states: Tensor) -> Tensor:
        """Map last states to logits."""
        logits: Tensor = super().score(states) * self.config.lm_head_multiplier
        return logits
