"""BPE of all its kinds: merges that are listed, of bytes or of characters, and merges by tokens' scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.parts import (
    BYTE_TOKENS,
    SPACE,
    Parts,
    sentencepiece_decoder,
    spell_sentencepiece,
)
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.vocab.vocabulary import PREFIX, Vocabulary, read_flag

_LONGEST = 1 << 10  # characters of a token for SentencePiece; the ways to join one are as many, each as long


def listed_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """Merges are listed in their order; the rule says what they join: bytes, as GPT-2's, or characters."""
    return (_byte_level_bpe if rule.byte_level else _character_bpe)(vocabulary, rule, metadata)


def _byte_level_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """GPT-2's: tokens are bytes, each written as a printable character.

    No reader heeds `add_space_prefix` here: it comes from configs to which tokenizers give no heed either.
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
    """Gemma 4's: what is no token becomes bytes, or nothing if there are no tokens for them."""
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
    """As `listed_bpe`, but white space only separates; letters are lowered if the file says so."""
    parts = listed_bpe(vocabulary, rule, metadata)
    lowers = read_flag(metadata, "normalizer.lowercase", False)
    return replace(
        parts,
        normalizer=normalizers.Lowercase() if lowers else None,
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), parts.pre_tokenizer]),
    )


def scored_bpe(vocabulary: Vocabulary, rule: PreTokenizer, metadata: Mapping[str, Any]) -> Parts:
    """SentencePiece's: characters join into the token with the best score; what is no token becomes bytes."""
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
    """Whether all bytes are tokens: if only some are, the library brings their order into disorder."""
    return all(token in vocabulary.ids for token in BYTE_TOKENS)


def _bpe(vocabulary: Vocabulary, merges: list[Any], **options: Any) -> models.Model:
    try:
        return models.BPE(vocabulary.ids, merges, **options)
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(_what_is_wrong(vocabulary, merges) or f"{PREFIX}merges: {error}") from None


def _what_is_wrong(vocabulary: Vocabulary, merges: list[Any]) -> str | None:
    for token in vocabulary.tokens:
        if any("\ud800" <= character <= "\udfff" for character in token):
            return f"{PREFIX}tokens: {token!r} is not UTF-8"
    for merge in merges:
        if len(merge) != 2:
            return f"{PREFIX}merges: {' '.join(merge)!r} is not two tokens with a space between them"
        for part in (*merge, "".join(merge)):
            if part not in vocabulary.ids:
                return f"{PREFIX}merges: {' '.join(merge)!r} needs {part!r}, which is not among the tokens"
    return None


def _listed_merges(vocabulary: Vocabulary) -> list[tuple[str, ...]]:
    if vocabulary.merges is None:
        raise TokenizerError(f"{PREFIX}merges is missing, without which BPE cannot join anything")
    return [tuple(merge.split(" ")) for merge in dict.fromkeys(vocabulary.merges)]


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    if vocabulary.scores is None:
        raise TokenizerError(
            f"{PREFIX}scores is missing, without which SentencePiece's BPE cannot join anything"
        )
    tokens, scores = vocabulary.tokens, vocabulary.scores
    if len({score for token, score in zip(tokens, scores, strict=True) if len(token) > 1}) == 1:
        warnings.warn(
            f"{PREFIX}scores are all the same: the file does not say in which order tokens are joined, so "
            "ids may not be the model's own. Take the tokenizer from where the model came from",
            stacklevel=2,
        )
    order = sorted(range(len(tokens)), key=scores.__getitem__, reverse=True)
    return merges_by_score([tokens[i] for i in order], vocabulary.ids)


def merges_by_score(tokens: Iterable[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Each way to join two tokens, those that have `ids`, into one of `tokens`, whose best comes first.

    Of the ways that give the same token, the longer left part goes first: where two are possible and overlap,
    as "ab", "a" and "ba" in "ababa", it is the one further left, which SentencePiece prefers. TokenizerError
    for a token too long to try.
    """
    merges = []
    for token in tokens:
        if len(token) > _LONGEST:
            raise TokenizerError(
                f"{PREFIX}tokens: token {ids[token]} has {len(token)} characters, more than {_LONGEST}"
            )
        for cut in range(len(token) - 1, 0, -1):
            left = token[:cut]
            if left in ids and (right := token[cut:]) in ids:
                merges.append((left, right))
    return merges


def _byte_characters() -> dict[str, int]:
    """GPT-2's characters for bytes: themselves if they show, else those from U+0100 on, in order."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_characters()


def spell_byte_level(token: str) -> bytes:
    """The bytes whose printable characters the token is made of."""
    try:
        return bytes([_BYTES[character] for character in token])
    except KeyError:  # not made of bytes, as a token that was added as it is
        return token.encode()
