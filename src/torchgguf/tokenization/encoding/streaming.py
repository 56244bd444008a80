"""Tokens to text while they arrive, in pieces that never end inside a character."""

from __future__ import annotations

import codecs
from typing import Protocol

from torchgguf.tokenization.encoding.tokens import TokenIds


class Speller(Protocol):
    """What `StreamDecoder` needs of a tokenizer."""

    @property
    def errors(self) -> str:
        """What bytes become that are not UTF-8, as in `bytes.decode`."""

    @property
    def add_space_prefix(self) -> bool:
        """Whether encoding adds a space before each text, which decoding removes."""

    def spell(self, token_ids: TokenIds, skip_special_tokens: bool = False) -> bytes:
        """Return the bytes that tokens stand for, joined."""


class StreamDecoder:
    """Decodes tokens as they arrive. The pieces add up to what `decode` returns for all of them.

    A token may hold a part of a character's bytes, which wait here for the rest.
    """

    def __init__(
        self, tokenizer: Speller, skip_special_tokens: bool = False, *, continues: bool = False
    ) -> None:
        """Start a text.

        Args:
            tokenizer: spells the tokens.
            skip_special_tokens: omit control tokens.
            continues: the text continues another one, so that its first space is not one that the tokenizer
                has added.
        """
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)
        self._drop_space = tokenizer.add_space_prefix and not continues

    def push(self, token_ids: TokenIds) -> str:
        """Add a token, or several; return the text that they complete, which may be empty."""
        return self._trimmed(self._utf8.decode(self._tokenizer.spell(token_ids, self._skip_special_tokens)))

    def flush(self) -> str:
        """End the text. A character that lacks bytes becomes what the tokenizer's `errors` states."""
        return self._trimmed(self._utf8.decode(b"", final=True))

    def _trimmed(self, text: str) -> str:
        if text and self._drop_space:
            self._drop_space = False
            return text.removeprefix(" ")
        return text
