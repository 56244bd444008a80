"""EXAONE 4.0 (LG AI Research 2025, arXiv 2507.11407): norms after attention and MLP, windows in some models.

In models with windows, only the layers with a window rotate queries and keys.
"""

from typing import Any

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel, PostNormLayer
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import SLIDING, LayerTypesConfig, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.nn import RMSNorm

_LAYERS_OF_32B = 64


@config_dataclass
class Exaone4Config(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    `sliding_window_pattern` is a period, as in `LayerTypesConfig`, or letters that are repeated: `L` for a
    layer with a window, `G` for one that sees all positions.
    """

    model_type = "exaone4"

    vocab_size: int = 102400
    intermediate_size: int = 16384
    num_key_value_heads: int | None = 32
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    sliding_window_pattern: str | int | None = 4

    def __post_init__(self, *legacy: Any) -> None:
        """Leave the pattern out if there is no window."""
        if self.sliding_window is None:
            self.sliding_window_pattern = 0
        super().__post_init__(*legacy)

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        pattern, layers = self.sliding_window_pattern, self.num_hidden_layers
        if self.sliding_window is None:
            return [FULL] * layers
        if isinstance(pattern, str):
            return [SLIDING if pattern[i % len(pattern)] == "L" else FULL for i in range(layers)]
        return self.types_by_period(pattern or 0)

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None, layers: int) -> dict[str, Any]:
        """Return the fields for a window and a pattern; without a pattern, only the 32B model has windows."""
        known = pattern is not None or layers == _LAYERS_OF_32B
        return super().window_fields(window if known else None, pattern, layers)

    @classmethod
    def pattern_is_known(cls, config: Any) -> bool:
        """Return False: readers know the pattern of one model only."""
        return False


EXAONE4 = Architecture(
    gguf="exaone4",
    config_class=Exaone4Config,
    rules=(*tables.DECODER_RULES, LayerWindows(Exaone4Config)),
    rows=(
        *tables.STREAM,
        *tables.POST_NORMS,
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
    ),
)


class Exaone4Model(DecoderModel, architecture=EXAONE4):
    """EXAONE 4.0 without a head."""

    def make_layer(self, config: Exaone4Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with norms after attention and MLP."""
        window = config.window_of(layer_idx)
        rotates = config.sliding_window is None or window is not None
        attention = Attention(
            config, layer_idx, window, qk_norm=RMSNorm, rotation="default" if rotates else None
        )
        return PostNormLayer(config, attention, MLP(config))


class Exaone4ForCausalLM(heads.ForCausalLM, base=Exaone4Model): ...


class Exaone4ForSequenceClassification(heads.ForSequenceClassification, base=Exaone4Model): ...


class Exaone4ForTokenClassification(heads.ForTokenClassification, base=Exaone4Model): ...


class Exaone4ForQuestionAnswering(heads.ForQuestionAnswering, base=Exaone4Model):
    base_model_prefix = "transformer"  # the name in released checkpoints
