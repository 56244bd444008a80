"""`TokenDecoder`: token ids to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import models

from torchgguf.tokenization.encoding.streaming import StreamDecoder
from torchgguf.tokenization.encoding.tokens import TokenIds, TokenTable, flat, is_batch
from torchgguf.tokenization.kinds.library import library_errors

# What transformers' clean-up replaces, in its order.
_CLEAN_UP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


class TokenDecoder:
    """Decodes token ids.

    Attributes:
        tokens: the tokens.
        errors: what bytes become that are not UTF-8, as in `bytes.decode`.
        clean_up_tokenization_spaces: remove the spaces before punctuation and contractions.
    """

    def __init__(self, tokens: TokenTable, *, errors: str, clean_up_tokenization_spaces: bool) -> None:
        self.tokens = tokens
        self.errors = errors
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces

    @property
    def add_space_prefix(self) -> bool:
        """Whether encoding adds a space before each text, which decoding removes."""
        return bool(self.tokens.model.add_space_prefix)

    def decode(
        self,
        token_ids: TokenIds | Sequence[TokenIds] | Mapping[str, Any],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
    ) -> Any:
        """Return the text of a sequence of ids, or the texts of a batch of them.

        Bytes that are not UTF-8 become U+FFFD, unless `errors` states otherwise. Unused tokens have no
        text, nor do ids beyond the vocabulary: a model may have more embeddings than there are tokens.

        Args:
            token_ids: the ids, a batch of them, or an encoding with `input_ids`.
            skip_special_tokens: omit control tokens.
            clean_up_tokenization_spaces: remove the space before punctuation and contractions, even where
                the text had one. By default as the attribute states, but never for BPE, whose texts it
                spoils; transformers ignores it there as well.
            spaces_between_special_tokens: ignored, as by transformers' fast tokenizers.

        Raises:
            ValueError: an id is negative.
        """
        ids: Any = token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids
        if is_batch(ids):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        decoder = StreamDecoder(self, skip_special_tokens)
        text = decoder.push(ids) + decoder.flush()
        if clean_up_tokenization_spaces is None:
            is_bpe = isinstance(self.tokens.model.backend.model, models.BPE)
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces and not is_bpe
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Return a text without the spaces before punctuation and contractions."""
        for old, new in _CLEAN_UP:
            out_string = out_string.replace(old, new)
        return out_string

    def batch_decode(self, /, sequences: Sequence[TokenIds] | torch.Tensor, **options: Any) -> list[str]:
        """Return the text of each sequence, or a list of one text for one sequence.

        Args:
            sequences: the ids.
            options: those of `decode`.
        """
        texts = self.decode(sequences, **options) if len(sequences) else []
        return [texts] if isinstance(texts, str) else list(texts)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens as a vocabulary spells them; they need not be in this one."""
        with library_errors("the tokenizer does not decode these tokens"):
            return str(self.tokens.model.backend.decoder.decode(list(tokens)))

    def spell(self, token_ids: TokenIds, skip_special_tokens: bool = False) -> bytes:
        """Return the bytes that tokens stand for, joined.

        Raises:
            ValueError: an id is negative.
        """
        model = self.tokens.model
        hidden = model.vocabulary.hidden if skip_special_tokens else ()
        known = model.pieces
        return b"".join([known.get(i) or model.piece(i) for i in flat(token_ids) if i not in hidden])
