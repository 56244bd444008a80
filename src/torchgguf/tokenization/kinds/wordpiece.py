"""WordPiece, BERT's: the longest token that a word begins with, and so on with the rest of the word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf.constants import TokenType
from tokenizers import decoders, models, normalizers, pre_tokenizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.parts import SPACE, Parts
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.vocab.vocabulary import PREFIX, Vocabulary, read, read_flag

CONTINUES = "##"  # what a token begins with that does not begin a word
LONGEST_WORD = 100  # characters; BERT takes a longer one for an unknown word, however well it is known
_NO_SPACE_BEFORE = (" .", " ?", " !", " ,")


def wordpiece(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """BERT's: words are what is between white space, marks of punctuation, Chinese characters."""
    unknown = vocabulary.roles.get("unk")
    if unknown is None:
        raise TokenizerError(f"{PREFIX}unknown_token_id is missing, which WordPiece makes of unknown words")
    model = models.WordPiece(
        vocabulary.ids,
        unk_token=vocabulary.tokens[unknown],
        continuing_subword_prefix=CONTINUES,
        max_input_chars_per_word=LONGEST_WORD,
    )
    normalizer = normalizers.BertNormalizer(
        lowercase=read_flag(metadata, "normalizer.lowercase", True),
        strip_accents=read(metadata, "normalizer.strip_accents", bool),  # None: if it lowers
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
    """The text of a token: words have a space before them, other than marks of punctuation."""
    if token.startswith(CONTINUES):
        return token.removeprefix(CONTINUES).encode()
    text = f" {token}"
    return (text.lstrip() if text in _NO_SPACE_BEFORE else text).encode()


def without_marks(tokens: list[str], types: list[int]) -> list[str]:
    """The tokens as BERT has them, of which GGUF marks those that begin words and not those that do not."""

    def original(token: str, kind: int) -> str:
        if token.startswith(SPACE) and token != SPACE:
            return token.removeprefix(SPACE)
        whole = kind in _WHOLE or (token.startswith("[") and token.endswith("]"))
        return token if whole else CONTINUES + token

    return [original(*pair) for pair in zip(tokens, types or [TokenType.NORMAL] * len(tokens), strict=True)]


def with_marks(tokens: list[str], types: list[int]) -> list[str]:
    """The tokens as GGUF has them, from which `without_marks` makes BERT's again."""

    def marked(token: str, kind: int) -> str:
        if kind in _WHOLE:
            return token
        return token.removeprefix(CONTINUES) if token.startswith(CONTINUES) else SPACE + token

    return [marked(*pair) for pair in zip(tokens, types, strict=True)]


_WHOLE = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
