"""Mistral (Jiang et al. 2023, arXiv 2310.06825): a Llama that looks back over a sliding window.

Its files call themselves `llama`; those that state a window are read as Mistral, the others are Llamas.
"""

from collections.abc import Iterable

from torchgguf.models.architecture import Architecture
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.config import config_dataclass
from torchgguf.models.config_map import Field
from torchgguf.models.decoder import DecoderConfig, DecoderForCausalLM, DecoderLayer, DecoderModel
from torchgguf.models.heads import ForQuestionAnswering, ForSequenceClassification, ForTokenClassification
from torchgguf.models.llama import LLAMA_RULES, LLAMA_WEIGHTS


@config_dataclass
class MistralConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "mistral"

    intermediate_size: int = 14336
    max_position_embeddings: int = 4096 * 32
    num_key_value_heads: int | None = 8
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    sliding_window: int | None = 4096


MISTRAL = Architecture(
    gguf="llama",
    config_class=MistralConfig,
    rules=(*LLAMA_RULES, Field("attention.sliding_window", "sliding_window", required=False)),
    weights=LLAMA_WEIGHTS,
    matches=lambda metadata: bool(metadata.get("llama.attention.sliding_window")),
)


class MistralPreTrainedModel(PreTrainedModel):
    """Base of the Mistral models."""

    architecture = MISTRAL


class MistralModel(MistralPreTrainedModel, DecoderModel):
    """Mistral without a head."""

    def make_layers(self, config: MistralConfig) -> Iterable[DecoderLayer]:
        """Make layers with the same window and no biases."""
        return (
            DecoderLayer(config, i, window=config.sliding_window) for i in range(config.num_hidden_layers)
        )


class MistralForCausalLM(MistralPreTrainedModel, DecoderForCausalLM):
    """Mistral that predicts the next token."""

    base_class = MistralModel


class MistralForSequenceClassification(MistralPreTrainedModel, ForSequenceClassification):
    """Mistral that judges texts."""

    base_class = MistralModel


class MistralForTokenClassification(MistralPreTrainedModel, ForTokenClassification):
    """Mistral that judges tokens."""

    base_class = MistralModel


class MistralForQuestionAnswering(MistralPreTrainedModel, ForQuestionAnswering):
    """Mistral that finds answers in texts."""

    base_class = MistralModel
