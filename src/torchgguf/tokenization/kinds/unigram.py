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
from torchgguf.tokenization.kinds.library import check_charsmap, check_lengths, library_errors
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
    check_lengths(f"{PREFIX}tokens", vocabulary.tokens)
    pieces = list(zip(vocabulary.tokens, map(float, vocabulary.scores), strict=True))
    for i in vocabulary.special.keys() | vocabulary.unused:
        hidden = i in hides or i in vocabulary.unused
        pieces[i] = (" " * hidden + vocabulary.tokens[i], 0.0)  # normalized text has no space
    with library_errors(f"{PREFIX}tokens and scores are invalid for a Unigram model", building=True):
        return models.Unigram(pieces, unknown, byte_fallback=all(t in vocabulary.ids for t in BYTE_TOKENS))


def _precompiled(charsmap: list[int]) -> normalizers.Normalizer:
    values = np.array(charsmap)
    if values.min() < -128 or values.max() > 255:
        raise TokenizerError(f"{PREFIX}{_CHARSMAP} must hold bytes")
    data = values.astype(np.uint8).tobytes()
    with library_errors(f"{PREFIX}{_CHARSMAP} is not a map of characters", building=True):
        check_charsmap(data)
        return normalizers.Precompiled(data)
