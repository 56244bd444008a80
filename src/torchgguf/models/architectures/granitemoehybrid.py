"""Granite 4 (Granite Team, IBM 2025): layers of Mamba 2 or attention, each with an MLP for all tokens.

Beside the MLP there may be experts. In most models attention has no rotation.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from torchgguf.models.architectures.granite import DividedLogits, MultipliedDecoder, Multipliers
from torchgguf.models.architectures.granitemoe import (
    ARGUMENT_ORDER,
    GRANITE_MOE,
    GraniteMoeConfig,
    expert_block,
)
from torchgguf.models.architectures.granitemoeshared import GraniteMoeSharedLayer, SharedExpert
from torchgguf.models.architectures.llama import LLAMA_RULES
from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import ScaledResidualLayer
from torchgguf.models.blocks.layer_kinds import FULL, LINEAR, HeadsByLayer, check_layer_types
from torchgguf.models.blocks.mamba2 import (
    UNLIMITED_STEPS,
    Expand,
    LongestText,
    Mamba2Mixer,
    Mamba2Options,
    mamba2_rows,
    mamba2_rules,
)
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Count, Header, Implied, Rule, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import Row

# What released configs call the kinds of layers.
_OLDER = {"mamba": LINEAR, "attention": FULL}


@config_dataclass
class GraniteMoeHybridConfig(GraniteMoeConfig):
    """Fields beyond those of Granite with experts, and other defaults.

    `layer_types` names the kind of each layer. The MLP of all tokens is `shared_intermediate_size` wide.
    Without `position_embedding_type` "rope", attention has no rotation.
    """

    model_type = "granitemoehybrid"
    attribute_map: ClassVar[Mapping[str, str]] = {"layers_block_type": "layer_types"}

    shared_intermediate_size: int = 1024
    position_embedding_type: str | None = None
    layer_types: list[str] | None = None
    mamba_n_heads: int = 128
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_d_head: int | str = "auto"
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_chunk_size: int = 256
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False
    time_step_limit: list[float] | tuple[float, ...] | None = (0.0, math.inf)

    def __post_init__(self, *legacy: Any) -> None:
        """Set what follows from other fields, and check the kinds of layers and the sizes of mixers."""
        super().__post_init__(*legacy)
        self.layer_types = [
            _OLDER.get(kind, kind) for kind in self.layer_types or [LINEAR] * self.num_hidden_layers
        ]
        check_layer_types(self.layer_types, (LINEAR, FULL), self.num_hidden_layers)
        size = self.mamba_expand * self.hidden_size
        if self.mamba_d_head == "auto":
            self.mamba_d_head = size // self.mamba_n_heads
        if self.mamba_d_head * self.mamba_n_heads != size:
            raise ValueError(
                f"mamba_n_heads times mamba_d_head must be mamba_expand times hidden_size, {size}, got "
                f"{self.mamba_n_heads} and {self.mamba_d_head}"
            )
        self.time_step_limit = [*(self.time_step_limit or (0.0, math.inf))]

    def check_experts(self) -> None:
        """Check the number of experts; none are valid, too."""
        if self.num_local_experts:
            super().check_experts()

    @property
    def has_mixers(self) -> bool:
        """Whether there are layers of Mamba 2."""
        return LINEAR in (self.layer_types or ())


def has_experts(config: Any) -> bool:
    """Return whether there are experts beside the MLP."""
    return bool(config.num_local_experts)


class SharedMLPSize(Rule):
    """The width of the MLP; files of models without experts may state it as that of any MLP."""

    keys = ("expert_shared_feed_forward_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the width."""
        size = header.get(self.keys[0], 0) or header.positive("feed_forward_length", int)
        return {"shared_intermediate_size": min(size, largest_dimension(header))}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the width."""
        if not has_experts(config) and config.shared_intermediate_size != config.intermediate_size:
            raise ValueError(
                "GGUF does not support shared_intermediate_size beside another intermediate_size without "
                f"experts, got {config.shared_intermediate_size} and {config.intermediate_size}"
            )
        return {self.keys[0]: config.shared_intermediate_size}


class StatedRotation(Rule):
    """Whether attention has a rotation: to llama.cpp, this key states it."""

    keys = ("rope.scaling.finetuned",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read whether it has."""
        return {"position_embedding_type": "rope" if header.get(self.keys[0], True) else None}

    def write(self, config: Any) -> dict[str, Any]:
        """Write whether it has."""
        return {self.keys[0]: config.position_embedding_type == "rope"}


_MLP = "layers.{}.shared_mlp"

GRANITE_MOE_HYBRID = Architecture(
    gguf="granitehybrid",
    # llama.cpp's converter states these for models without a recurrence.
    other_ggufs={
        "granite": lambda config: not config.has_mixers and not has_experts(config),
        "granitemoe": lambda config: not config.has_mixers,
    },
    config_class=GraniteMoeHybridConfig,
    rules=(
        *tables.with_own(LLAMA_RULES, HeadsByLayer(LINEAR), LongestText(lambda config: config.has_mixers)),
        Multipliers(),
        NO_WINDOW,
        Implied("attention_bias", lambda tensors: any(name.endswith("attn_q.bias") for name in tensors)),
        Count("expert_count", "num_local_experts", limit=largest_dimension),
        Count("expert_used_count", "num_experts_per_tok", limit=largest_dimension),
        SharedMLPSize(),
        StatedRotation(),
        *mamba2_rules("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv"),
        Expand("mamba_expand"),
        UNLIMITED_STEPS,
        Implied("mamba_conv_bias", lambda tensors: any(name.endswith("ssm_conv1d.bias") for name in tensors)),
        Unwritable("mamba_proj_bias", False),
    ),
    rows=(
        *GRANITE_MOE.rows,
        *mamba2_rows("mamba"),
        *(
            Row(f"blk.{{}}.ffn_{part}{end}", f"{_MLP}.{name}", applies=applies)
            for end, applies in (("", lambda config: not has_experts(config)), ("_shexp", has_experts))
            for part, name in (
                ("gate", "input_linear.gate_proj"),
                ("up", "input_linear.up_proj"),
                ("down", "output_linear"),
            )
        ),
    ),
    other_names=GRANITE_MOE.other_names,
)


class MambaOfLayer(Mamba2Mixer):
    """A mixer by Granite's name."""

    layer_name = "mamba"


class SharedMLP(SharedExpert):
    """The MLP of a layer without experts."""

    layer_name = "shared_mlp"


class GraniteMoeHybridModel(MultipliedDecoder, architecture=GRANITE_MOE_HYBRID):
    """Granite 4 without a head."""

    output_class = MoeModelOutputWithPast

    def make_rotary(self, config: GraniteMoeHybridConfig) -> nn.Module | None:
        """Create the rotation; None: there is none."""
        return super().make_rotary(config) if config.position_embedding_type == "rope" else None

    def make_layer(self, config: GraniteMoeHybridConfig, layer_idx: int) -> ScaledResidualLayer:
        """Make a layer of the kind that the config states, with or without experts."""
        assert config.layer_types is not None
        mixer: nn.Module
        if config.layer_types[layer_idx] == LINEAR:
            mixer = MambaOfLayer(config.hidden_size, layer_idx, _mamba_options(config))
        else:
            mixer = Attention(
                config,
                layer_idx,
                bias=config.attention_bias,
                scaling=config.attention_multiplier,
                rotation="default" if config.position_embedding_type == "rope" else None,
            )
        if has_experts(config):
            return GraniteMoeSharedLayer(config, mixer, expert_block(config))
        return ScaledResidualLayer(config, mixer, SharedMLP(config))


def _mamba_options(config: GraniteMoeHybridConfig) -> Mamba2Options:
    assert isinstance(config.mamba_d_head, int)
    assert config.time_step_limit is not None
    least, largest = config.time_step_limit
    return Mamba2Options(
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


class GraniteMoeHybridForCausalLM(DividedLogits, moe.MoeForCausalLM, base=GraniteMoeHybridModel):
    """Predicts the next token."""

    argument_order = ARGUMENT_ORDER
