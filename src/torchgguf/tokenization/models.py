"""One row for each `tokenizer.ggml.model`: what its files leave unsaid, and how its text becomes tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.pre_tokenizers import PreTokenizer, pre_tokenizer
from torchgguf.tokenization.vocabulary import (
    PREFIX,
    USER_DEFINED,
    Roles,
    Vocabulary,
    read,
    read_roles,
    read_vocabulary,
)
from torchgguf.tokenization.wrapping import Wrapping

SPACE = "▁"  # what SentencePiece writes for a space
_LONGEST = 1 << 10  # characters of a token for SentencePiece; the ways to join one are as many, each as long


@dataclass(frozen=True)
class TokenizerModel:
    """A vocabulary with all that turns text into its ids, and ids into bytes.

    `backend` cuts special tokens out of a text; `plain_backend` takes them for the text that they are.
    Neither is asked to add any: that is what `add_bos` and `add_eos` say, or else `wrapping`. `spell`: the
    bytes that an ordinary token stands for. `add_space_prefix`: each stretch of text is given a leading
    space, of which decoding takes the first one away.
    """

    vocabulary: Vocabulary
    backend: Tokenizer
    plain_backend: Tokenizer
    spell: Callable[[str], bytes]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    wrapping: Wrapping | None = None


@dataclass(frozen=True)
class _Parts:
    """What is done to a stretch of text: normalized, cut into pieces, each made tokens by the model.

    `decoder`: the way back, for others who read the tokenizer that we write.
    """

    model: models.Model
    normalizer: normalizers.Normalizer | None
    pre_tokenizer: pre_tokenizers.PreTokenizer | None
    decoder: decoders.Decoder
    spell: Callable[[str], bytes]


@dataclass(frozen=True)
class _Kind:
    """A row of the table: its parts, and the roles and flags that hold unless the file says otherwise.

    Without `add_space_prefix` nothing that a file says of it counts.
    """

    parts: Callable[[Vocabulary, PreTokenizer, bool], _Parts]
    splits_by_rule: bool  # whether `tokenizer.ggml.pre` names how text is split
    roles: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_space_prefix: bool = False


def read_model(metadata: Mapping[str, Any], pre: str | PreTokenizer | None = None) -> TokenizerModel:
    """Build the tokenizer that the metadata describes. TokenizerError if that is not possible.

    `pre`: a splitting rule, or the name of one, that replaces the file's.
    """
    kind = _kind(metadata)
    rule = _rule(metadata, pre) if kind.splits_by_rule else PreTokenizer(())
    vocabulary = read_vocabulary(metadata, kind.roles)

    def flag(key: str, default: bool) -> bool:
        stated = read(metadata, key, bool)
        return default if stated is None else bool(stated)

    add_space_prefix = kind.add_space_prefix and flag("add_space_prefix", True)
    parts = kind.parts(vocabulary, rule, add_space_prefix)
    user_defined = (i for i, token_type in vocabulary.special.items() if token_type == USER_DEFINED)
    return TokenizerModel(
        vocabulary,
        _backend(parts, vocabulary, vocabulary.special),
        _backend(parts, vocabulary, user_defined),
        parts.spell,
        flag("add_bos_token", kind.add_bos or rule.add_bos),
        flag("add_eos_token", False),
        add_space_prefix,
    )


def presumed_flags(kind: str, pre: str) -> dict[str, bool]:
    """Whether readers add BOS and EOS if a file does not say so."""
    return {"bos": KINDS[kind].add_bos or pre_tokenizer(pre).add_bos, "eos": False}


def read_tokens(metadata: Mapping[str, Any]) -> Roles:
    """What tokens are for, for those who need to know no more. TokenizerError if there is no vocabulary."""
    return read_roles(metadata, _kind(metadata).roles)


def _kind(metadata: Mapping[str, Any]) -> _Kind:
    name = read(metadata, "model", str)
    if name is None:
        raise TokenizerError(f"{PREFIX}model is missing: the file holds no tokenizer")
    if name not in KINDS:
        raise TokenizerError(f"{PREFIX}model is {name!r}; supported are {', '.join(map(repr, KINDS))}")
    return KINDS[name]


def _rule(metadata: Mapping[str, Any], override: str | PreTokenizer | None) -> PreTokenizer:
    if isinstance(override, PreTokenizer):
        return override
    name = override or read(metadata, "pre", str)
    if name is None:
        warnings.warn(
            f"{PREFIX}pre is missing: splitting text by the rule 'default', as llama.cpp does, which may not "
            "be the model's own. Name the right one: AutoTokenizer.from_pretrained(..., pre='llama-bpe')",
            stacklevel=2,
        )
        name = "default"
    return pre_tokenizer(name)


def _backend(parts: _Parts, vocabulary: Vocabulary, special: Iterable[int]) -> Tokenizer:
    backend = Tokenizer(parts.model)
    backend.normalizer = parts.normalizer
    backend.pre_tokenizer = parts.pre_tokenizer
    backend.decoder = parts.decoder
    # Not normalized: they are looked for in the text as it came. Of two that overlap the one further left is
    # taken, as in the original tokenizers, where llama.cpp takes the longer.
    backend.add_tokens(
        [
            AddedToken(
                text := vocabulary.tokens[i],
                normalized=False,
                special=i in vocabulary.hidden,
                lstrip=text in vocabulary.lstrip,
                rstrip=text in vocabulary.rstrip,
            )
            for i in special
        ]
    )
    return backend


def _byte_level_bpe(vocabulary: Vocabulary, rule: PreTokenizer, add_space_prefix: bool) -> _Parts:
    """GPT-2's: tokens are bytes, each written as a printable character; merges are listed in their order."""
    if vocabulary.merges is None:
        raise TokenizerError(f"{PREFIX}merges is missing, without which byte-level BPE cannot join anything")
    pairs = [tuple(merge.split(" ")) for merge in dict.fromkeys(vocabulary.merges)]
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.splits]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _Parts(
        _bpe(vocabulary, pairs, ignore_merges=rule.ignore_merges),
        normalizers.NFC() if rule.nfc else None,
        pre_tokenizers.Sequence([*splits, byte_level]),
        decoders.ByteLevel(),
        spell_byte_level,
    )


def _sentencepiece_bpe(vocabulary: Vocabulary, rule: PreTokenizer, add_space_prefix: bool) -> _Parts:
    """SentencePiece's: characters join into the token with the best score; what is no token becomes bytes."""
    space = normalizers.Replace(" ", SPACE)
    has_bytes = all(f"<0x{byte:02X}>" in vocabulary.ids for byte in range(256))
    unknown = vocabulary.roles.get("unk")
    return _Parts(
        _bpe(
            vocabulary,
            _merges_by_score(vocabulary),
            byte_fallback=has_bytes,
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
        ),
        normalizers.Sequence([normalizers.Prepend(SPACE), space]) if add_space_prefix else space,
        None,
        decoders.Sequence(
            [
                decoders.Replace(SPACE, " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                *([decoders.Strip(" ", 1, 0)] if add_space_prefix else []),
            ]
        ),
        spell_sentencepiece,
    )


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


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Each way to join two tokens into a third, the best third first.

    Of the ways that give the same token, the longer left part goes first: where two are possible and overlap,
    as "ab", "a" and "ba" in "ababa", it is the one further left, which SentencePiece prefers.
    """
    if vocabulary.scores is None:
        raise TokenizerError(
            f"{PREFIX}scores is missing, without which SentencePiece's BPE cannot join anything"
        )
    ids, tokens, scores = vocabulary.ids, vocabulary.tokens, vocabulary.scores
    merges = []
    for i in sorted(range(len(tokens)), key=scores.__getitem__, reverse=True):
        token = tokens[i]
        if len(token) > _LONGEST:
            raise TokenizerError(
                f"{PREFIX}tokens: token {i} has {len(token)} characters, more than {_LONGEST}"
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


def spell_sentencepiece(token: str) -> bytes:
    """The text of a token with SentencePiece's mark for a space."""
    return token.replace(SPACE, " ").encode()


KINDS: dict[str, _Kind] = {
    "gpt2": _Kind(_byte_level_bpe, splits_by_rule=True),
    "llama": _Kind(
        _sentencepiece_bpe,
        splits_by_rule=False,
        roles={"unk": 0, "bos": 1, "eos": 2},
        add_bos=True,
        add_space_prefix=True,
    ),
}
