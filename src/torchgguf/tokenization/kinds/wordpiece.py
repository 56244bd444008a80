"""WordPiece, BERT's: the longest token that a word begins with, then the same for the rest of the word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf.constants import TokenType
from tokenizers import decoders, models, normalizers, pre_tokenizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.library import library_errors
from torchgguf.tokenization.kinds.parts import SPACE, Parts
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.vocab.values import PREFIX, read_flag, read_value
from torchgguf.tokenization.vocab.vocabulary import Vocabulary

CONTINUES = "##"  # the beginning of a token that continues a word
LONGEST_WORD = 100  # characters; a longer word is unknown to BERT, even if it is a token
_NO_SPACE_BEFORE = (" .", " ?", " !", " ,")


def wordpiece(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build BERT's WordPiece: white space, punctuation and Chinese characters separate words."""
    unknown = vocabulary.roles.get("unk")
    if unknown is None:
        raise TokenizerError(f"{PREFIX}unknown_token_id is missing, which WordPiece needs for unknown words")
    with library_errors(f"{PREFIX}tokens are invalid for WordPiece", building=True):
        model = models.WordPiece(
            vocabulary.ids,
            unk_token=vocabulary.tokens[unknown],
            continuing_subword_prefix=CONTINUES,
            max_input_chars_per_word=LONGEST_WORD,
        )
    normalizer = normalizers.BertNormalizer(
        lowercase=read_flag(metadata, "normalizer.lowercase", True),
        strip_accents=read_value(metadata, "normalizer.strip_accents", bool),  # None: only in lower case
    )
    return Parts(
        model,
        normalizer,
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(CONTINUES),
        spell_wordpiece,
        spell_wordpiece,
        add_space_prefix=True,
    )


def spell_wordpiece(token: str) -> bytes:
    """Return the text of a token as UTF-8: a word has a space before it, punctuation does not."""
    if token.startswith(CONTINUES):
        return token.removeprefix(CONTINUES).encode()
    text = f" {token}"
    return (text.lstrip() if text in _NO_SPACE_BEFORE else text).encode()


def without_marks(tokens: list[str], types: list[int]) -> list[str]:
    """Return GGUF's tokens, where a mark begins a word, as BERT's, where a mark continues one."""

    def original(token: str, kind: int) -> str:
        if token.startswith(SPACE) and token != SPACE:
            return token.removeprefix(SPACE)
        whole = kind in _WHOLE or (token.startswith("[") and token.endswith("]"))
        return token if whole else CONTINUES + token

    return [original(*pair) for pair in zip(tokens, types or [TokenType.NORMAL] * len(tokens), strict=True)]


def with_marks(tokens: list[str], types: list[int]) -> list[str]:
    """Return BERT's tokens as GGUF's; `without_marks` reverses it."""

    def marked(token: str, kind: int) -> str:
        if kind in _WHOLE:
            return token
        return token.removeprefix(CONTINUES) if token.startswith(CONTINUES) else SPACE + token

    return [marked(*pair) for pair in zip(tokens, types, strict=True)]


_WHOLE = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
