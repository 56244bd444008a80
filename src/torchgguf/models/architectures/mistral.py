"""Mistral (Jiang et al. 2023, arXiv 2310.06825): a Llama with a sliding window.

The architecture of its files is `llama`, and most store no window: later Mistrals use no window, llama.cpp
ignores it. So files with "mistral" in their name are matched, too. Without a window both compute the same.
"""

from torchgguf.container import Metadata
from torchgguf.models.architectures.llama import LLAMA_ROWS, LLAMA_RULES, NO_EXPERTS
from torchgguf.models.blocks import heads
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import LayerWindows, UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class MistralConfig(UniformlyWindowedConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "mistral"

    intermediate_size: int = 14336
    max_position_embeddings: int = 4096 * 32
    num_key_value_heads: int | None = 8
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    sliding_window: int | None = 4096


def _is_mistral(metadata: Metadata) -> bool:
    names = (metadata.get(f"general.{key}") for key in ("name", "basename"))
    return bool(metadata.get("llama.attention.sliding_window")) or any(
        "mistral" in name.lower() for name in names if isinstance(name, str)
    )


MISTRAL = Architecture(
    gguf="llama",
    config_class=MistralConfig,
    rules=(*LLAMA_RULES, *NO_EXPERTS, LayerWindows(MistralConfig)),
    rows=LLAMA_ROWS,
    matches=_is_mistral,
    scales_biases=True,
)


class MistralModel(DecoderModel, architecture=MISTRAL):
    """Mistral without a head."""

    def make_layer(self, config: MistralConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with the window and without biases."""
        return DecoderLayer(config, Attention(config, layer_idx, config.sliding_window), MLP(config))


class MistralForCausalLM(heads.ForCausalLM, base=MistralModel): ...


class MistralForSequenceClassification(heads.ForSequenceClassification, base=MistralModel): ...


class MistralForTokenClassification(heads.ForTokenClassification, base=MistralModel): ...


class MistralForQuestionAnswering(heads.ForQuestionAnswering, base=MistralModel): ...
