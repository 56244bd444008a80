"""Jamba (Lieber et al. 2024, arXiv 2403.19887): layers of Mamba, some of attention, some with experts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from torch import nn

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel, NormNames
from torchgguf.models.blocks.layer_kinds import FULL, HeadsByLayer
from torchgguf.models.blocks.mamba import (
    MambaSizes,
    NormedMambaMixer,
    mixer_rules,
    normed_mixer_rows,
    resolved_rank,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Field,
    Harmless,
    Header,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.layer_values import is_integers
from torchgguf.models.core.weight_map import Row, Stack
from torchgguf.nn import RMSNorm

_MAMBA = "linear_attention"
_HEAD_SIZES = ("attention.key_length", "attention.value_length")
# Beginnings of the names of fields.
_ATTENTION, _EXPERTS = "attn_layer", "expert_layer"


@config_dataclass
class JambaConfig(DecoderConfig):
    """Sizes and choices.

    Layer `i` has attention if `i % attn_layer_period == attn_layer_offset`, or else a mixer of Mamba; it has
    experts if `i % expert_layer_period == expert_layer_offset`, or else an MLP.
    """

    model_type = "jamba"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}
    left_out = ("rope_parameters",)

    vocab_size: int = 65536
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 262144
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    num_experts_per_tok: int = 2
    num_experts: int = 16
    expert_layer_period: int = 2
    expert_layer_offset: int = 1
    attn_layer_period: int = 8
    attn_layer_offset: int = 4
    mamba_d_state: int = 16
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_dt_rank: int | str = "auto"
    mamba_conv_bias: bool = True
    mamba_proj_bias: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Set the rank that follows from the width, and check the periods and the number of experts."""
        super().__post_init__(*legacy)
        self.mamba_dt_rank = resolved_rank("mamba_dt_rank", self.mamba_dt_rank, self.hidden_size)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)
        for kind in (_ATTENTION, _EXPERTS):
            period, offset = (getattr(self, f"{kind}_{part}") for part in ("period", "offset"))
            if not 0 <= offset < period:
                raise ValueError(f"{kind}_offset must be from 0 to {kind}_period={period} - 1, got {offset}")

    def has_attention(self, layer_idx: int) -> bool:
        """Return whether a layer has attention."""
        return layer_idx % self.attn_layer_period == self.attn_layer_offset

    def has_experts(self, layer_idx: int) -> bool:
        """Return whether a layer has experts."""
        return self.num_experts > 1 and layer_idx % self.expert_layer_period == self.expert_layer_offset

    @property
    def layer_types(self) -> list[str]:
        """The kinds of the layers."""
        kinds = (_MAMBA, FULL)
        return [kinds[self.has_attention(i)] for i in range(self.num_hidden_layers)]

    def sizes(self) -> MambaSizes:
        """Return the sizes of mixers."""
        assert isinstance(self.mamba_dt_rank, int)
        channels = self.mamba_expand * self.hidden_size
        return MambaSizes(
            self.hidden_size, channels, self.mamba_d_state, self.mamba_dt_rank, self.mamba_d_conv
        )


class AttentionHeads(Field):
    """The number of heads in layers with attention; files may state it for each layer, 0 for the others."""

    def number(self, header: Header) -> int:
        """Return the number, which is the same in all layers with attention."""
        stated = header.values.get(self.key)
        if is_integers(stated) and len(numbers := {*stated} - {0}) == 1:
            header = replace(header, values={**header.values, self.key: numbers.pop()})
        return int(super().number(header))


class ExpertNumber(Field):
    """A number of experts; 0, as files of models without experts state, is 1 here."""

    def number(self, header: Header) -> int:
        """Return the number, at least 1."""
        return max(1, int(header.get(self.key, 0)))


class PeriodicLayers(HeadsByLayer):
    """The layers with attention, by their numbers of heads, and those with experts, by their routers."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the number of heads, and the periods and the offsets of the layers."""
        fields = super().read(header)
        kinds = fields.pop("layer_types", ())
        routed = [f"blk.{i}.ffn_gate_inp.weight" in header.tensors for i in range(len(kinds))]
        for kind, has in ((_ATTENTION, [kind == FULL for kind in kinds]), (_EXPERTS, routed)):
            fields |= _period(kind, has)
        return fields


def _period(kind: str, has: Sequence[bool]) -> dict[str, int]:
    """Return the fields that describe which layers are of a kind: the shortest period, and the offset."""
    offset = has.index(True) if any(has) else len(has)
    for period in range(offset + 1, len(has) + 2):
        if all((i % period == offset) == is_one for i, is_one in enumerate(has)):
            return {f"{kind}_period": period, f"{kind}_offset": offset}
    numbers = [i for i, is_one in enumerate(has) if is_one]
    raise GGUFError(f"the layers of one kind must be every n-th, got {brief(numbers)} as {kind}")


_FEED_FORWARD = "layers.{}.feed_forward"

JAMBA = Architecture(
    gguf="jamba",
    config_class=JambaConfig,
    rules=(
        Field("block_count", "num_hidden_layers", limit=tensor_count),
        Field("context_length", "max_position_embeddings"),
        Field("embedding_length", "hidden_size", limit=largest_dimension),
        Field("feed_forward_length", "intermediate_size", limit=largest_dimension),
        AttentionHeads("attention.head_count", "num_attention_heads", limit=largest_dimension),
        *(Field(key, "head_dim", required=False, limit=largest_dimension) for key in _HEAD_SIZES),
        Harmless(("attention.recurrent_layers", "expert_feed_forward_length")),
        Field("attention.layer_norm_rms_epsilon", "rms_norm_eps", float),
        PeriodicLayers(_MAMBA),
        *mixer_rules("mamba_d_conv", "mamba_d_state", "mamba_dt_rank", "mamba_expand"),
        ExpertNumber("expert_count", "num_experts", limit=largest_dimension),
        ExpertNumber("expert_used_count", "num_experts_per_tok", limit=largest_dimension),
        *tables.IMPLIED_RULES,
        Unwritable("hidden_act", "silu"),
        Unwritable("mamba_proj_bias", False),
        Unwritable("mamba_conv_bias", True),
    ),
    rows=(
        Row("token_embd", "embed_tokens"),
        Row("output_norm", "final_layernorm"),
        tables.STREAM[2],
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        Row("blk.{}.ffn_norm", "layers.{}.pre_ff_layernorm"),
        *tables.ATTENTION,
        *normed_mixer_rows("mamba"),
        *(Row(f"blk.{{}}.ffn_{part}", f"{_FEED_FORWARD}.{part}_proj") for part in ("gate", "up", "down")),
        *tables.expert_rows("feed_forward", "router"),
    ),
    stacks=(
        Stack(
            f"{_FEED_FORWARD}.experts.gate_up_proj",
            tuple(f"{_FEED_FORWARD}.experts.{{}}.{part}_proj.weight" for part in ("gate", "up")),
        ),
        Stack(f"{_FEED_FORWARD}.experts.down_proj", (f"{_FEED_FORWARD}.experts.{{}}.down_proj.weight",)),
    ),
)


class JambaMixer(NormedMambaMixer):
    """The mixer of most layers."""

    layer_name = "mamba"


class JambaMLP(MLP):
    """The MLP of layers without experts."""

    layer_name = "feed_forward"


class JambaMoeBlock(moe.SparseMoeBlock):
    """Experts, and the router that chooses among them."""

    layer_name = "feed_forward"
    gate_name = "router"


class JambaLayer(DecoderLayer):
    """A layer of any kind."""

    norm_names = NormNames(before_mlp="pre_ff_layernorm")


class JambaModel(DecoderModel, architecture=JAMBA):
    """Jamba without a head."""

    norm_name = "final_layernorm"
    output_class = MoeModelOutputWithPast

    def make_rotary(self, config: JambaConfig) -> None:
        """Return None: nothing is rotated."""

    def make_layer(self, config: JambaConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer of the kind that the config states, with or without experts."""
        return JambaLayer(config, self.make_mixer(config, layer_idx), self.make_mlp(config, layer_idx))

    def make_mixer(self, config: JambaConfig, layer_idx: int) -> nn.Module:
        """Make the attention or the mixer of a layer."""
        if config.has_attention(layer_idx):
            return Attention(config, layer_idx, rotation=None)
        norm = partial(RMSNorm, eps=config.rms_norm_eps)
        biases = {"conv_bias": config.mamba_conv_bias, "bias": config.mamba_proj_bias}
        return JambaMixer(config.sizes(), layer_idx, config.hidden_act, norm, **biases)

    def make_mlp(self, config: JambaConfig, layer_idx: int) -> nn.Module:
        """Make the MLP or the experts of a layer."""
        if not config.has_experts(layer_idx):
            return JambaMLP(config)
        experts = moe.gated_experts(config, config.num_experts, config.intermediate_size)
        router = partial(moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=False)
        return JambaMoeBlock(experts, router)


class JambaForCausalLM(moe.MoeForCausalLM, base=JambaModel): ...


class JambaForSequenceClassification(heads.ForSequenceClassification, base=JambaModel): ...
