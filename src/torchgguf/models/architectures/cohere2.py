"""Command R7B and Command A (Cohere 2024 and 2025): windows in three layers of four, which alone rotate."""

from dataclasses import InitVar
from typing import Any

from torchgguf.models.architectures.cohere import (
    COHERE_ROWS,
    COHERE_RULES,
    ScaledForCausalLM,
    cohere_norm,
)
from torchgguf.models.blocks import tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel, ParallelLayer
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import LayerTypesConfig, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.nn import rotate_neighbours


@config_dataclass
class Cohere2Config(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every fourth layer sees all positions, others see `sliding_window`.
    """

    model_type = "cohere2"
    left_out = ("rms_norm_eps",)
    period = 4

    vocab_size: int = 256000
    hidden_size: int = 8192
    intermediate_size: int = 22528
    logit_scale: float = 0.0625
    num_hidden_layers: int = 40
    num_attention_heads: int = 64
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 5
    eos_token_id: int | list[int] | None = 255001
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    sliding_window_pattern: InitVar[int | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Replace the pattern of older configs."""
        *others, pattern = legacy
        if pattern is not None and self.layer_types is None:
            self.layer_types = self.types_by_period(pattern)
        super().__post_init__(*others)


COHERE2 = Architecture(
    gguf="cohere2",
    config_class=Cohere2Config,
    rules=(*COHERE_RULES, tables.ROTATED_SIZE, LayerWindows(Cohere2Config)),
    rows=COHERE_ROWS,
)


class Cohere2Model(DecoderModel, architecture=COHERE2):
    """Command R7B without a head."""

    def make_layer(self, config: Cohere2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with a window and rotation, or without either."""
        window = config.window_of(layer_idx)
        attention = Attention(
            config,
            layer_idx,
            window,
            bias=config.attention_bias,
            rotation=None if window is None else "default",
            rotate=rotate_neighbours,
        )
        return ParallelLayer(config, attention, MLP(config), cohere_norm)

    def make_norm(self, config: Any) -> Any:
        """Create the last norm."""
        return cohere_norm(config)


class Cohere2ForCausalLM(ScaledForCausalLM, base=Cohere2Model): ...
