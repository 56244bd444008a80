"""`TokenizerSource`: where a tokenizer comes from, and what all such places provide."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenizers import AddedToken

from torchgguf.container import ArrayType, Metadata, ValueType
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.vocab.values import PREFIX

UNLIMITED = int(1e30)  # transformers' `model_max_length` where the length is unknown
MOST_GAPS = 1 << 18  # ids that no token has, for each of which a name is made up
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
    """The defaults of a tokenizer's attributes, under their names.

    Attributes:
        notes: what the files state and cannot mean, and what is done instead.
    """

    chat_templates: Mapping[str, str] = field(default_factory=dict)
    padding_side: str = "right"
    truncation_side: str = "right"
    model_max_length: int = UNLIMITED
    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    clean_up_tokenization_spaces: bool = False
    split_special_tokens: bool = False
    notes: tuple[str, ...] = ()


class TokenizerSource(Protocol):
    """A tokenizer as it was found. It is plain data, which can be pickled; nothing in it changes."""

    @property
    def place(self) -> str:
        """The file, as warnings name it; empty if they name it otherwise."""

    @property
    def defaults(self) -> Defaults:
        """The defaults of the tokenizer's attributes."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The entries of a tokenizer_config.json, to be written again."""

    def read(self) -> TokenizerModel:
        """Build the tokenizer.

        Raises:
            TokenizerError: the source is incomplete, contradicts itself, or is unsupported.
        """

    def with_tokens(self, tokens: Sequence[AddedToken]) -> TokenizerSource:
        """Return this source with more tokens; those that it lacks are appended.

        Raises:
            TokenizerError: an option of a token is unsupported.
        """

    def metadata(self, model: TokenizerModel, vocab_size: int | None) -> Metadata:
        """Return the keys `tokenizer.*` of a GGUF file.

        Args:
            model: what `read` returned, perhaps with another wrapping.
            vocab_size: the model's number of embeddings, if it is known.

        Raises:
            TokenizerError: GGUF does not support what the tokenizer does.
            ValueError: the number of embeddings does not fit.
        """


def padding_tokens(first: int, end: int) -> list[str]:
    """Return the names of llama.cpp's converter for the ids from `first` to `end` that no token has."""
    return [f"[PAD{i}]" for i in range(first, end)]


def warn_of_rowless(file: str, tokens: Sequence[str], vocab_size: int) -> None:
    """Warn that added tokens are not written, as a model has no embeddings for them.

    Args:
        file: the file that names the tokens.
        tokens: the tokens.
        vocab_size: the model's number of embeddings.
    """
    others = f" and {len(tokens) - 1} others" if len(tokens) > 1 else ""
    warnings.warn(
        f"{file}: the added token {tokens[0]!r}{others} is left out, as the model has only {vocab_size} "
        "embeddings",
        stacklevel=5,
    )


def checked_size(tokens: int, vocab_size: int | None) -> int:
    """Return the number of tokens to write: the model's number of embeddings, if it is known.

    Raises:
        ValueError: the model has fewer embeddings than there are tokens, or far more.
    """
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
