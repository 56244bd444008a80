"""Where a tokenizer comes from: what every such place can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenizers import AddedToken

from torchgguf.container import ArrayType, Metadata, ValueType
from torchgguf.tokenization.kinds.table import TokenizerModel
from torchgguf.tokenization.vocab.vocabulary import PREFIX

UNLIMITED = int(1e30)  # what transformers says for the length of a model whose length is not known
MOST_GAPS = 1 << 20  # ids that no token has
PADDING_SCORE, ADDED_SCORE = -10000.0, -1000.0  # as llama.cpp's converter writes them

TYPES = {
    PREFIX + "tokens": ArrayType(ValueType.STRING),
    PREFIX + "merges": ArrayType(ValueType.STRING),
    PREFIX + "token_type": ArrayType(ValueType.INT32),
    PREFIX + "scores": ArrayType(ValueType.FLOAT32),
    PREFIX + "precompiled_charsmap": ArrayType(ValueType.UINT8),
}


@dataclass(frozen=True)
class Defaults:
    """What a tokenizer is set to at first, under the names that its settings have."""

    chat_templates: Mapping[str, str] = field(default_factory=dict)
    padding_side: str = "right"
    truncation_side: str = "right"
    model_max_length: int = UNLIMITED
    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    clean_up_tokenization_spaces: bool = False
    split_special_tokens: bool = False


class Source(Protocol):
    """A tokenizer as it came. It is plain data, which can be pickled; nothing in it changes."""

    @property
    def defaults(self) -> Defaults:
        """How the tokenizer is set."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What a tokenizer_config.json said that we have no use for, to be written again."""

    def read(self) -> TokenizerModel:
        """Build the tokenizer. TokenizerError if it is incomplete, contradictory, or not supported."""

    def with_tokens(self, tokens: Sequence[AddedToken]) -> Source:
        """The same with more tokens, those that it lacks at the end."""

    def metadata(self, model: TokenizerModel, vocab_size: int | None) -> Metadata:
        """The keys `tokenizer.*` of a GGUF file, for a model that has so many embeddings."""


def padding_tokens(first: int, end: int) -> list[str]:
    """The names that llama.cpp's converter gives to embeddings which no token has."""
    return [f"[PAD{i}]" for i in range(first, end)]


def checked_size(tokens: int, vocab_size: int | None) -> int:
    """The number of tokens to write. ValueError if the model has fewer embeddings, or far more, than that."""
    if vocab_size is not None and vocab_size < tokens:
        raise ValueError(
            f"the tokenizer has {tokens} tokens, but the model only {vocab_size} embeddings: "
            f"call model.resize_token_embeddings({tokens})"
        )
    if vocab_size is not None and vocab_size - tokens > MOST_GAPS:
        raise ValueError(
            f"the tokenizer has {tokens} tokens, the model {vocab_size} embeddings: far too many"
        )
    return vocab_size or tokens
