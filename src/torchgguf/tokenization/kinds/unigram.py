"""Unigram, SentencePiece's: of all ways to split a text into tokens, the one with the best sum of scores.

The `tokenizers` library normalizes text by its reading of SentencePiece's map, as in the Hugging Face
tokenizers of such models. It looks up a letter with all its marks at once, where SentencePiece and llama.cpp
look for the longest sequence in the map: "½" with an accent is 1/2 here, and keeps the accent there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Regex, models, normalizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.parts import (
    BYTE_TOKENS,
    SPACE,
    Parts,
    sentencepiece_decoder,
    spell_sentencepiece,
)
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.vocab.values import PREFIX, read_flag, read_value
from torchgguf.tokenization.vocab.vocabulary import Vocabulary

_CHARSMAP = "precompiled_charsmap"


def unigram(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build T5's Unigram, with the map of characters by which its SentencePiece normalizes."""
    merges_spaces = read_flag(metadata, "remove_extra_whitespaces", False)
    add_space_prefix = read_flag(metadata, "add_space_prefix", merges_spaces)
    steps: list[normalizers.Normalizer] = []
    if charsmap := read_value(metadata, _CHARSMAP, list, of=int):
        steps.append(_precompiled(charsmap))
    if merges_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if add_space_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return Parts(
        _model(vocabulary, hides=frozenset()),
        normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)]),
        None,
        sentencepiece_decoder(add_space_prefix),
        spell_sentencepiece,
        add_space_prefix=add_space_prefix,
        plain_model=partial(_model, vocabulary, vocabulary.hidden),
    )


def _model(vocabulary: Vocabulary, hides: frozenset[int]) -> models.Model:
    """Build the model, which finds ordinary tokens in texts, and special ones except those in `hides`.

    The score of an unknown character is a little below the worst of all, so special and hidden tokens get 0.
    """
    if vocabulary.scores is None:
        raise TokenizerError(f"{PREFIX}scores is missing, which Unigram needs to choose")
    if (unknown := vocabulary.roles.get("unk")) is None:
        raise TokenizerError(
            f"{PREFIX}unknown_token_id is missing, which Unigram needs for unknown characters"
        )
    pieces = list(zip(vocabulary.tokens, map(float, vocabulary.scores), strict=True))
    for i in vocabulary.special.keys() | vocabulary.unused:
        hidden = i in hides or i in vocabulary.unused
        pieces[i] = (" " * hidden + vocabulary.tokens[i], 0.0)  # normalized text has no space
    try:
        return models.Unigram(pieces, unknown, byte_fallback=all(t in vocabulary.ids for t in BYTE_TOKENS))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{PREFIX}tokens and scores are invalid for a Unigram model: {error}") from None


def _precompiled(charsmap: list[int]) -> normalizers.Normalizer:
    values = np.array(charsmap)
    if values.min() < -128 or values.max() > 255:
        raise TokenizerError(f"{PREFIX}{_CHARSMAP} must hold bytes")
    data = values.astype(np.uint8).tobytes()
    try:
        _check(data)
        return normalizers.Precompiled(data)
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{PREFIX}{_CHARSMAP} is not a map of characters: {error}") from None


def _check(charsmap: bytes) -> None:
    """Check that the map stays inside itself: the library follows it without checks.

    It holds the size of a double array in bytes, the array, and texts that end in zero bytes. From entry i
    the way goes to i ^ offset ^ (a byte of the text); if bit 8 is set, i ^ offset states where a text begins.
    Source: Darts-clone, with which SentencePiece builds it.

    Raises:
        ValueError: the map leads out of itself.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 0 < size <= len(charsmap) - 4:
        raise ValueError(f"it has {len(charsmap)} bytes, {size} of which should be a trie")
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4)
    texts = np.frombuffer(charsmap, np.uint8, offset=4 + size)
    inner = np.flatnonzero(units < 1 << 31)
    bases = inner ^ ((units[inner] >> 10) << ((units[inner] & 1 << 9) >> 6))
    if units[0] >> 31 or (bases | 0xFF).max() >= len(units):
        raise ValueError("its trie leads out of it")
    begins = units[bases[units[inner] >> 8 & 1 == 1]] & 0x7FFFFFFF
    inside_character = np.append(texts & 0xC0 == 0x80, False)
    if begins.max(initial=0) > len(texts) or inside_character[begins].any():
        raise ValueError("its trie leads to no text")
