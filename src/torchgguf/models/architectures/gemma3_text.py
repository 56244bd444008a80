"""Gemma 3, its text part (Gemma Team 2025, arXiv 2503.19786): windows in five layers of six.

Layers with a window rotate by other frequencies than those that see all positions. EmbeddingGemma (Google
2025, arXiv 2509.20354) is a Gemma 3 whose queries see later positions, too.
"""

from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, SandwichLayer
from torchgguf.models.blocks.gemma.two_rotations import TwoBasesRope, TwoRotationsModel
from torchgguf.models.blocks.gemma.unit_offset import (
    ScoreScale,
    UnitOffsetModel,
    score_scale,
    unit_offset_norm,
)
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import SLIDING, LayerTypesConfig, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, NoneIfZero, Rule, Unwritable
from torchgguf.nn import AttentionMask, Cache, UnitOffsetRMSNorm, bidirectional_mask

EMBEDDER = "gemma-embedding"


@config_dataclass
class Gemma3TextConfig(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every sixth layer sees all positions, others see `sliding_window`. `rope_parameters` contain those of both
    kinds of layers. With `use_bidirectional_attention`, queries see later positions, too, and half of
    `sliding_window` in each direction; then the attribute is that half and 1, as in transformers.
    """

    left_out = ("hidden_act",)
    model_type = "gemma3_text"
    period = 6
    default_thetas: ClassVar[Mapping[str, float]] = {FULL: 1000000.0, SLIDING: 10000.0}

    vocab_size: int = 262208
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: int = 256
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = False
    rope_local_base_freq: InitVar[float | None] = None
    sliding_window_pattern: InitVar[int | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace the fields of older configs, and name the activation as other decoders do."""
        *others, local_base, pattern = legacy
        if local_base is not None:
            local = {"rope_theta": local_base, **((self.rope_parameters or {}).get(SLIDING) or {})}
            self.rope_parameters = {**(self.rope_parameters or {}), SLIDING: local}
        if pattern is not None and self.layer_types is None:
            self.layer_types = self.types_by_period(pattern)
        super().__post_init__(*others)
        self.hidden_act = self.hidden_activation
        if self.use_bidirectional_attention and self.sliding_window is not None:
            self.sliding_window = self.sliding_window // 2 + 1  # half of it in each direction

    @property
    def stated_window(self) -> int | None:
        """The window as files state it: in both directions together."""
        if not self.use_bidirectional_attention or self.sliding_window is None:
            return self.sliding_window
        return 2 * (self.sliding_window - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of config.json."""
        return {**super().to_dict(), "sliding_window": self.stated_window}


class Directions(Rule):
    """Whether queries see later positions, too: in files of another architecture."""

    keys = ("attention.causal",)

    def read(self, header: Header) -> dict[str, Any]:
        """Return what the name of the architecture states, and refuse a key that contradicts it."""
        embeds = header.architecture == EMBEDDER
        if header.get(self.keys[0], not embeds) is embeds:
            raise GGUFError(f"{self.keys[0]} = {embeds} contradicts the architecture, {header.architecture}")
        return {"use_bidirectional_attention": embeds}


GEMMA3 = Architecture(
    gguf="gemma3",
    other_ggufs={EMBEDDER: lambda config: bool(config.use_bidirectional_attention)},
    config_class=Gemma3TextConfig,
    rules=(
        *(rule for rule in tables.COMMON_RULES if "attention.causal" not in rule.keys),
        Directions(),
        tables.ROTATED_SIZE,
        TwoBasesRope(Gemma3TextConfig),
        LayerWindows(Gemma3TextConfig),
        NoneIfZero("final_logit_softcapping", "final_logit_softcapping", float, required=False),
        ScoreScale(layers=62),
        Unwritable("attn_logit_softcapping", None),
        Unwritable("hidden_activation", "gelu_pytorch_tanh"),
        Unwritable("attention_bias", False),
    ),
    rows=(
        *tables.STREAM,
        *tables.SANDWICH_NORMS,
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
    ),
)


class Gemma3TextModel(UnitOffsetModel, TwoRotationsModel, architecture=GEMMA3):
    """Gemma 3's text part without a head."""

    def make_layer(self, config: Gemma3TextConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer of either kind."""
        assert config.layer_types is not None
        attention = Attention(
            config,
            layer_idx,
            config.window_of(layer_idx),
            bias=config.attention_bias,
            qk_norm=UnitOffsetRMSNorm,
            rotation=config.layer_types[layer_idx],
            scaling=score_scale(config),
            softcap=config.attn_logit_softcapping,
        )
        return SandwichLayer(config, attention, MLP(config), unit_offset_norm)

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create the masks of one forward pass, one for each window of the layers."""
        if not self.config.use_bidirectional_attention:
            return super().make_masks(attention_mask, x, cache)
        if cache is not None and cache.known_length != 0:
            raise ValueError(f"cache must be empty: this {type(self).__name__} sees all positions at once")
        reach = {window: None if window is None else window - 1 for window in self.windows}
        return {window: bidirectional_mask(attention_mask, x, reach[window]) for window in self.windows}


class Gemma3ForCausalLM(heads.CappedForCausalLM, base=Gemma3TextModel): ...


class Gemma3TextForSequenceClassification(heads.ForSequenceClassification, base=Gemma3TextModel): ...
