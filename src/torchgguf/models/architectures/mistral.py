"""Mistral (Jiang et al. 2023, arXiv 2310.06825): a Llama that looks back over a sliding window.

Its files call themselves `llama`, and most state no window: later Mistrals have none, llama.cpp reads none.
Those whose name says so are Mistrals as well. Without a window the two compute the same.
"""

from collections.abc import Iterable
from typing import Any

from torchgguf.container import Metadata
from torchgguf.models.architectures.llama import LLAMA_RULES, LLAMA_WEIGHTS
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderForCausalLM, DecoderLayer, DecoderModel
from torchgguf.models.blocks.heads import (
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Rule


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


class Window(Rule):
    """How far back a position looks; 0, and nothing stated, is without limit."""

    keys = ("attention.sliding_window",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the window."""
        window = header.positive(self.keys[0], int) if header.get(self.keys[0], 0) else None
        return {"sliding_window": window}

    def write(self, config: MistralConfig) -> dict[str, Any]:
        """Write the window, if there is one."""
        return {} if config.sliding_window is None else {self.keys[0]: config.sliding_window}


def _is_mistral(metadata: Metadata) -> bool:
    names = (metadata.get(f"general.{key}") for key in ("name", "basename"))
    return bool(metadata.get("llama.attention.sliding_window")) or any(
        "mistral" in name.lower() for name in names if isinstance(name, str)
    )


MISTRAL = Architecture(
    gguf="llama",
    config_class=MistralConfig,
    rules=(*LLAMA_RULES, Window()),
    weights=LLAMA_WEIGHTS,
    matches=_is_mistral,
)


class MistralModel(DecoderModel, architecture=MISTRAL):
    """Mistral without a head."""

    def make_layers(self, config: MistralConfig) -> Iterable[DecoderLayer]:
        """Make layers with the same window and no biases."""
        return (
            DecoderLayer(config, i, window=config.sliding_window) for i in range(config.num_hidden_layers)
        )


class MistralForCausalLM(DecoderForCausalLM, base=MistralModel): ...


class MistralForSequenceClassification(ForSequenceClassification, base=MistralModel): ...


class MistralForTokenClassification(ForTokenClassification, base=MistralModel): ...


class MistralForQuestionAnswering(ForQuestionAnswering, base=MistralModel): ...
