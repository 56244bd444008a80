"""SmolLM3 (Bakouch et al. 2025): a Llama that rotates queries and keys in three layers of four only.

Layers without rotation are those of NoPE (Kazemnejad et al. 2023, arXiv 2305.19466).
"""

from typing import Any

from torchgguf.models.architectures.llama import LLAMA_ROWS, LLAMA_RULES, NO_EXPERTS
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import NO_WINDOW, SLIDING, LayerTypesConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Implied, Unwritable


@config_dataclass
class SmolLM3Config(LayerTypesConfig):
    """Fields beyond those of all decoders, and other defaults.

    `no_rope_layers` has a 1 for each layer with rotation and a 0 for each without; by default, every
    `no_rope_layer_interval`-th is without. With `use_sliding_window`, layers without rotation see
    `sliding_window` positions.
    """

    model_type = "smollm3"
    default_theta = 2000000.0

    vocab_size: int = 128256
    hidden_size: int = 2048
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 32768
    bos_token_id: int | None = 128000
    eos_token_id: int | list[int] | None = 128001
    pad_token_id: int | None = 128004
    tie_word_embeddings: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = None
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: int = 4
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in which layers rotate, and check them."""
        if self.no_rope_layers is None:
            self.no_rope_layers = self.rotating_layers(self.no_rope_layer_interval)
        if len(self.no_rope_layers) != self.num_hidden_layers:
            raise ValueError(
                f"no_rope_layers must have one number for each of {self.num_hidden_layers} layers, "
                f"got {self.no_rope_layers}"
            )
        super().__post_init__(*legacy)

    def rotating_layers(self, interval: int) -> list[int]:
        """Return the `no_rope_layers` of a config in which every `interval`-th layer is without rotation."""
        return [int((i + 1) % interval != 0) for i in range(self.num_hidden_layers)]

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        windowed = self.use_sliding_window and self.sliding_window is not None
        return [SLIDING if windowed and not rotates else FULL for rotates in self.no_rope_layers or ()]

    @property
    def rotates_by_default(self) -> bool:
        """Whether every fourth layer is without rotation, and no other."""
        return self.no_rope_layers == self.rotating_layers(4)


SMOLLM3 = Architecture(
    gguf="smollm3",
    config_class=SmolLM3Config,
    rules=(
        *LLAMA_RULES,
        *NO_EXPERTS,
        Implied("attention_bias", tables.in_first_layer("attn_output.bias")),
        Implied("mlp_bias", lambda tensors: "blk.0.ffn_gate.bias" in tensors),
        NO_WINDOW,
        Unwritable("use_sliding_window", False),
        # The fixed interval of llama.cpp (src/models/smollm3.cpp).
        Unwritable("rotates_by_default", True),
    ),
    rows=LLAMA_ROWS,
)


class SmolLM3Model(DecoderModel, architecture=SMOLLM3):
    """SmolLM3 without a head."""

    def make_layer(self, config: SmolLM3Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with or without rotation."""
        assert config.no_rope_layers is not None
        attention = Attention(
            config,
            layer_idx,
            config.window_of(layer_idx),
            bias=config.attention_bias,
            rotation="default" if config.no_rope_layers[layer_idx] else None,
        )
        return DecoderLayer(config, attention, MLP(config, bias=config.mlp_bias))


class SmolLM3ForCausalLM(heads.ForCausalLM, base=SmolLM3Model): ...


class SmolLM3ForSequenceClassification(heads.ForSequenceClassification, base=SmolLM3Model): ...


class SmolLM3ForTokenClassification(heads.ForTokenClassification, base=SmolLM3Model): ...


class SmolLM3ForQuestionAnswering(heads.ForQuestionAnswering, base=SmolLM3Model):
    base_model_prefix = "transformer"  # the name in released checkpoints
