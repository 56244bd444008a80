"""OLMo 3 (Team OLMo 2025, arXiv 2512.13961): an OLMo 2 with windows in three layers of four.

Layers with a window rotate without scaling.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torchgguf.models.architectures.olmo2 import OLMO2_ROWS
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import AttentionNormingAllHeads
from torchgguf.models.blocks.decoder import DecoderLayer, PostNormLayer
from torchgguf.models.blocks.gemma.two_rotations import TwoBasesRope, TwoRotationsModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import SLIDING, LayerTypesConfig, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.nn import RMSNorm


@config_dataclass
class Olmo3Config(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every fourth layer sees all positions, others see `sliding_window`. `rope_parameters` contain those of
    both kinds of layers.
    """

    model_type = "olmo3"
    period = 4
    default_thetas: ClassVar[Mapping[str, float]] = {FULL: 500000.0, SLIDING: 500000.0}

    vocab_size: int = 50304
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 50279
    attention_bias: bool = False

    @classmethod
    def pattern_is_known(cls, config: Any) -> bool:
        """Return False: files state the pattern even if it is the usual one."""
        return False


OLMO3 = Architecture(
    gguf="olmo2",
    config_class=Olmo3Config,
    rules=(
        *tables.COMMON_RULES,
        tables.ROTATED_SIZE,
        TwoBasesRope(Olmo3Config),
        LayerWindows(Olmo3Config),
        Unwritable("hidden_act", "silu"),
        Unwritable("attention_bias", False),
    ),
    rows=OLMO2_ROWS,
    matches=lambda metadata: bool(metadata.get("olmo2.attention.sliding_window")),
)


class Olmo3Model(TwoRotationsModel, architecture=OLMO3):
    """OLMo 3 without a head."""

    def make_layer(self, config: Olmo3Config, layer_idx: int) -> DecoderLayer:
        """Make a layer of either kind."""
        assert config.layer_types is not None
        attention = AttentionNormingAllHeads(
            config,
            layer_idx,
            config.window_of(layer_idx),
            bias=config.attention_bias,
            qk_norm=RMSNorm,
            rotation=config.layer_types[layer_idx],
        )
        return PostNormLayer(config, attention, MLP(config))


class Olmo3ForCausalLM(heads.ForCausalLM, base=Olmo3Model): ...


class Olmo3ForSequenceClassification(heads.ForSequenceClassification, base=Olmo3Model): ...
