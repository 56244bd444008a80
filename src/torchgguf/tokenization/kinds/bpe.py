"""BPE in all its kinds: listed merges, of bytes or of characters, and merges by tokens' scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.library import check_lengths, library_errors
from torchgguf.tokenization.kinds.parts import (
    BYTE_TOKENS,
    SPACE,
    Parts,
    sentencepiece_decoder,
    spell_sentencepiece,
)
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.vocab.values import PREFIX, read_flag
from torchgguf.tokenization.vocab.vocabulary import Vocabulary


def listed_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build BPE with listed merges, which join bytes (as GPT-2's) or characters, as the rule states."""
    return (_byte_level_bpe if rule.byte_level else _character_bpe)(vocabulary, rule, metadata)


def _byte_level_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build GPT-2's BPE: tokens are bytes, each written as a printable character.

    All readers ignore `add_space_prefix` here: it comes from configs whose tokenizers ignore it too.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return Parts(
        _bpe(vocabulary, _listed_merges(vocabulary), ignore_merges=rule.ignore_merges),
        normalizers.NFC() if rule.nfc else None,
        pre_tokenizers.Sequence([*_splits(rule), byte_level]),
        decoders.ByteLevel(),
        spell_byte_level,
    )


def _character_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build Gemma 4's BPE: what is not a token becomes bytes, or nothing if there are no tokens for them."""
    fallback = _has_bytes(vocabulary)
    return Parts(
        _bpe(
            vocabulary, _listed_merges(vocabulary), ignore_merges=rule.ignore_merges, byte_fallback=fallback
        ),
        normalizers.Replace(" ", SPACE) if rule.marks_spaces else None,
        pre_tokenizers.Sequence(_splits(rule)),
        sentencepiece_decoder(add_space_prefix=False),
        spell_sentencepiece if rule.marks_spaces else str.encode,
    )


def spaceless_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build `listed_bpe` for words between white space, in lower case if the file states so."""
    parts = listed_bpe(vocabulary, rule, metadata)
    lowers = read_flag(metadata, "normalizer.lowercase", False)
    return replace(
        parts,
        normalizer=normalizers.Lowercase() if lowers else None,
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), parts.pre_tokenizer]),
    )


def scored_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Build SentencePiece's BPE: characters join into the token with the best score, others become bytes."""
    add_space_prefix = read_flag(metadata, "add_space_prefix", True)
    space = normalizers.Replace(" ", SPACE)
    unknown = vocabulary.roles.get("unk")
    return Parts(
        _bpe(
            vocabulary,
            _merges_by_score(vocabulary),
            byte_fallback=_has_bytes(vocabulary),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
        ),
        normalizers.Sequence([normalizers.Prepend(SPACE), space]) if add_space_prefix else space,
        None,
        sentencepiece_decoder(add_space_prefix),
        spell_sentencepiece,
        add_space_prefix=add_space_prefix,
    )


def _splits(rule: PreTokenizer) -> list[pre_tokenizers.PreTokenizer]:
    return [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.splits]


def _has_bytes(vocabulary: Vocabulary) -> bool:
    """Return whether all bytes are tokens: if only some are, the library confuses their order."""
    return all(token in vocabulary.ids for token in BYTE_TOKENS)


def _bpe(vocabulary: Vocabulary, merges: list[Any], **options: Any) -> models.Model:
    try:
        with library_errors(f"{PREFIX}merges", building=True):
            return models.BPE(vocabulary.ids, merges, **options)
    except TokenizerError as error:
        raise (_what_is_wrong(vocabulary, merges) or error) from None


def _what_is_wrong(vocabulary: Vocabulary, merges: list[Any]) -> TokenizerError | None:
    for merge in merges:
        if len(merge) != 2:
            return TokenizerError(
                f"{PREFIX}merges: {' '.join(merge)!r} is not two tokens with a space between them"
            )
        for part in (*merge, "".join(merge)):
            if part not in vocabulary.ids:
                return TokenizerError(
                    f"{PREFIX}merges: {' '.join(merge)!r} needs {part!r}, which is not among the tokens"
                )
    return None


def _listed_merges(vocabulary: Vocabulary) -> list[tuple[str, ...]]:
    if vocabulary.merges is None:
        raise TokenizerError(f"{PREFIX}merges is missing, which BPE needs to join anything")
    return [tuple(merge.split(" ")) for merge in dict.fromkeys(vocabulary.merges)]


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    if vocabulary.scores is None:
        raise TokenizerError(f"{PREFIX}scores is missing, which SentencePiece's BPE needs to join anything")
    tokens, scores = vocabulary.tokens, vocabulary.scores
    check_lengths(f"{PREFIX}tokens", tokens)
    if len({score for token, score in zip(tokens, scores, strict=True) if len(token) > 1}) == 1:
        warnings.warn(
            f"{PREFIX}scores are all the same: the file does not state in which order tokens are joined, so "
            "ids may not be the model's own. Load the tokenizer from where the model came from",
            stacklevel=2,
        )
    order = sorted(range(len(tokens)), key=scores.__getitem__, reverse=True)
    return merges_by_score([tokens[i] for i in order], vocabulary.ids)


def merges_by_score(tokens: Iterable[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return each way to join two tokens into one, the way to the best token first.

    Of the ways to the same token, the longer left part is first: where two are possible and overlap, as "ab",
    "a" and "ba" in "ababa", it is the one further left, which SentencePiece prefers.

    Args:
        tokens: the tokens to join others into, the best first.
        ids: the ids of the tokens that can be joined.
    """
    merges = []
    for token in tokens:
        for cut in range(len(token) - 1, 0, -1):
            left = token[:cut]
            if left in ids and (right := token[cut:]) in ids:
                merges.append((left, right))
    return merges


def _byte_characters() -> dict[str, int]:
    """Return the byte of each of GPT-2's characters: itself if printable, else U+0100 and on, in order."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_characters()


def spell_byte_level(token: str) -> bytes:
    """Return the bytes whose printable characters a token consists of."""
    try:
        return bytes([_BYTES[character] for character in token])
    except KeyError:  # a token that was added as plain text
        return token.encode()
