"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv 2407.10671)."""

from collections.abc import Iterable
from typing import Any

from torchgguf.container import GGUFError
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderForCausalLM, DecoderLayer, DecoderModel
from torchgguf.models.blocks.heads import (
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from torchgguf.models.blocks.tables import DECODER_ROWS, DECODER_RULES
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Header, Rule
from torchgguf.models.core.weight_map import Row, WeightMap

SLIDING, FULL = "sliding_attention", "full_attention"


@config_dataclass
class Qwen2Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    With `use_sliding_window`, layers from `max_window_layers` on look back over `sliding_window` positions;
    `layer_types` says it for each layer, and goes first.
    """

    model_type = "qwen2"

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    num_key_value_heads: int | None = 32
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Say of each layer whether it has a window."""
        super().__post_init__(*legacy)
        if not self.use_sliding_window:
            self.sliding_window = None
        if self.layer_types is None:
            windowed = self.num_hidden_layers if self.sliding_window is None else self.max_window_layers
            self.layer_types = [FULL if i < windowed else SLIDING for i in range(self.num_hidden_layers)]
        if len(self.layer_types) != self.num_hidden_layers or not {*self.layer_types} <= {FULL, SLIDING}:
            raise ValueError(
                f"layer_types must name {FULL!r} or {SLIDING!r} once for each of "
                f"{self.num_hidden_layers} layers, but it is {self.layer_types}"
            )

    @property
    def windows(self) -> list[int | None]:
        """The window of each layer."""
        assert self.layer_types is not None
        return [self.sliding_window if kind == SLIDING else None for kind in self.layer_types]


class LayerWindows(Rule):
    """The window, and which layers have it: all of them unless a pattern says."""

    keys = ("attention.sliding_window", "attention.sliding_window_pattern")

    def read(self, header: Header) -> dict[str, Any]:
        """Read the window; 0 is none."""
        window = header.positive(self.keys[0], int) if header.get(self.keys[0], 0) else None
        stated = {"use_sliding_window": window is not None, "sliding_window": window}
        if (pattern := header.values.get(self.keys[1])) is None:
            return {} if window is None else {**stated, "max_window_layers": 0}
        layers = header.get("block_count", 0)
        if not (
            isinstance(pattern, list) and len(pattern) == layers and all(type(x) is bool for x in pattern)
        ):
            raise GGUFError(f"{self.keys[1]} must be {layers} booleans, one a layer")
        if window is None and any(pattern):
            raise GGUFError(f"{self.keys[1]} says which layers have a window, but {self.keys[0]} states none")
        return {**stated, "layer_types": [SLIDING if sliding else FULL for sliding in pattern]}

    def write(self, config: Qwen2Config) -> dict[str, Any]:
        """Write window and pattern, if any layer has one."""
        if not any(config.windows):
            return {}
        return {self.keys[0]: config.sliding_window, self.keys[1]: [bool(w) for w in config.windows]}


QWEN2 = Architecture(
    gguf="qwen2",
    config_class=Qwen2Config,
    rules=(*DECODER_RULES, LayerWindows(), Harmless(("pooling_type",))),  # how embeddings are pooled
    weights=WeightMap(
        (
            *DECODER_ROWS,
            Row("blk.{}.attn_q", "layers.{}.self_attn.q_proj"),
            Row("blk.{}.attn_k", "layers.{}.self_attn.k_proj"),
        )
    ),
)


class Qwen2Model(DecoderModel, architecture=QWEN2):
    """Qwen2 without a head."""

    def make_layers(self, config: Qwen2Config) -> Iterable[DecoderLayer]:
        """Make layers with biases in the query, key and value projections."""
        return (
            DecoderLayer(config, i, window=window, qkv_bias=True) for i, window in enumerate(config.windows)
        )


class Qwen2ForCausalLM(DecoderForCausalLM, base=Qwen2Model): ...


class Qwen2ForSequenceClassification(ForSequenceClassification, base=Qwen2Model): ...


class Qwen2ForTokenClassification(ForTokenClassification, base=Qwen2Model): ...


class Qwen2ForQuestionAnswering(ForQuestionAnswering, base=Qwen2Model):
    base_model_prefix = "transformer"  # what released checkpoints call it
