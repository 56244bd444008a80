"""Tokens to text while they come, in pieces that never end inside a character."""

from __future__ import annotations

import codecs
from typing import Protocol

from torchgguf.tokenization.encoding.lookup import TokenIds


class Speller(Protocol):
    """What decoding asks of a tokenizer."""

    errors: str

    @property
    def add_space_prefix(self) -> bool:
        """Whether each text is given a leading space, which decoding takes away."""

    def spell(self, token_ids: TokenIds, skip_special_tokens: bool = False) -> bytes:
        """The bytes that tokens stand for, one after the other."""


class StreamDecoder:
    """Decodes tokens as they come. The pieces add up to what `decode` makes of all of them.

    A token may hold a part of a character's bytes; they wait here for the rest. `continues`: the text goes on
    from another, so that a tokenizer which puts a space before each text does not take the first one away.
    """

    def __init__(
        self, tokenizer: Speller, skip_special_tokens: bool = False, *, continues: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)
        self._drop_space = tokenizer.add_space_prefix and not continues

    def push(self, token_ids: TokenIds) -> str:
        """Add a token, or several; return the text they complete, which may be empty."""
        return self._trimmed(self._utf8.decode(self._tokenizer.spell(token_ids, self._skip_special_tokens)))

    def flush(self) -> str:
        """End the text. A character that lacks bytes becomes what the tokenizer's `errors` says."""
        return self._trimmed(self._utf8.decode(b"", final=True))

    def _trimmed(self, text: str) -> str:
        if text and self._drop_space:
            self._drop_space = False
            return text.removeprefix(" ")
        return text
