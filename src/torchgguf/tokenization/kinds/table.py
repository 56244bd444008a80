"""One row for each `tokenizer.ggml.model`: what its files leave unsaid, and how its text becomes tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Model

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.bpe import listed_bpe, scored_bpe, spaceless_bpe
from torchgguf.tokenization.kinds.parts import Parts
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, pre_tokenizer
from torchgguf.tokenization.kinds.unigram import unigram
from torchgguf.tokenization.kinds.wordpiece import without_marks, wordpiece
from torchgguf.tokenization.kinds.wrapping import Piece, Wrapping, read_wrapping
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.vocabulary import (
    PREFIX,
    USER_DEFINED,
    Roles,
    Vocabulary,
    read,
    read_flag,
    read_roles,
    read_vocabulary,
)

_NO_RULE = PreTokenizer(())


@dataclass(frozen=True)
class TokenizerModel:
    """A vocabulary with all that turns text into its ids, and ids into bytes.

    `backend` cuts special tokens out of a text; what `make_plain` makes takes them for the text that they
    are. Neither is asked to add any: that is what `add_bos` and `add_eos` say, or else `wrapping`. `spell`:
    the bytes that an ordinary token stands for; `spell_special`: those of one that texts are searched for.
    `add_space_prefix`: each stretch of text is given a leading space, of which decoding takes the first away.
    """

    vocabulary: Vocabulary
    backend: Tokenizer
    make_plain: Callable[[], Tokenizer]
    spell: Callable[[str], bytes]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    wrapping: Wrapping | None = None
    spell_special: Callable[[str], bytes] = str.encode

    @cached_property
    def plain_backend(self) -> Tokenizer:
        """The one that takes special tokens for the text that they are, made when it is first asked for."""
        return self.make_plain()


@dataclass(frozen=True)
class _Kind:
    """A row of the table: its parts, and what holds for its files unless they say otherwise.

    `rule`: how text is split, None if `tokenizer.ggml.pre` names that. `respell`: makes the kind's own tokens
    of those that files hold. `encloses`: texts are put between two tokens, whatever flags say, each with the
    first of these roles that one has. `settings`: what its attributes are set to at first.
    """

    parts: Callable[[Vocabulary, PreTokenizer, Mapping[str, Any]], Parts]
    rule: PreTokenizer | None = _NO_RULE
    roles: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    encloses: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    respell: Callable[[list[str], list[int]], list[str]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_model(metadata: Mapping[str, Any], pre: str | PreTokenizer | None = None) -> TokenizerModel:
    """Build the tokenizer that the metadata describes. TokenizerError if that is not possible.

    `pre`: a splitting rule, or the name of one, that replaces the file's.
    """
    kind = _kind(metadata)
    rule = _rule(kind, metadata, pre)
    vocabulary = read_vocabulary(metadata, kind.roles, kind.respell)
    parts = kind.parts(vocabulary, rule, metadata)
    add_bos = rule.always_adds_bos or read_flag(metadata, "add_bos_token", kind.add_bos or rule.add_bos)
    add_eos = read_flag(metadata, "add_eos_token", kind.add_eos)
    add_sep = read_flag(metadata, "add_sep_token", rule.add_sep)
    return TokenizerModel(
        vocabulary,
        _backend(parts, parts.model, vocabulary, vocabulary.special),
        partial(_plain_backend, parts, vocabulary),
        parts.spell,
        add_bos,
        add_eos,
        parts.add_space_prefix,
        _wrapping(kind, vocabulary.roles, add_bos, add_eos, add_sep),
        parts.spell_special,
    )


def presumed_flags(kind: str, pre: str | None) -> dict[str, bool]:
    """Whether readers add BOS and EOS if a file of this kind, and with this rule, does not say so."""
    row = KINDS[kind]
    rule = row.rule or pre_tokenizer(pre or "default")
    adds_bos = row.add_bos or rule.add_bos or rule.always_adds_bos
    return {"bos": adds_bos or bool(row.encloses), "eos": row.add_eos or bool(row.encloses)}


def presumed_settings(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a tokenizer of this kind is set to at first. TokenizerError if the kind is not supported."""
    return _kind(metadata).settings


def own_tokens(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> list[str]:
    """The tokens that the file's tokens of these types are to its kind of tokenizer."""
    respell = _kind(metadata).respell
    return respell(tokens, types) if respell else tokens


def read_tokens(metadata: Mapping[str, Any]) -> Roles:
    """What tokens are for, for those who need to know no more. TokenizerError if there is no vocabulary."""
    return read_roles(metadata, _kind(metadata).roles)


def _kind(metadata: Mapping[str, Any]) -> _Kind:
    name = read(metadata, "model", str)
    if name is None:
        raise TokenizerError(f"{PREFIX}model is missing: the file holds no tokenizer")
    if reason := UNSUPPORTED.get(name):
        raise TokenizerError(f"{PREFIX}model is {name!r}, which is not supported: {reason}")
    if name not in KINDS:
        raise TokenizerError(f"{PREFIX}model is {name!r}; supported are {', '.join(map(repr, KINDS))}")
    return KINDS[name]


def _rule(kind: _Kind, metadata: Mapping[str, Any], override: str | PreTokenizer | None) -> PreTokenizer:
    if kind.rule is not None:
        if override is not None:
            raise TokenizerError(
                f"pre={override!r}: no rule for splitting text is used where {PREFIX}model is "
                f"{read(metadata, 'model', str)!r}"
            )
        return kind.rule
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


def _backend(parts: Parts, model: Model, vocabulary: Vocabulary, special: Iterable[int]) -> Tokenizer:
    backend = Tokenizer(model)
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


def _plain_backend(parts: Parts, vocabulary: Vocabulary) -> Tokenizer:
    model = parts.plain_model() if parts.plain_model else parts.model
    user_defined = (i for i, token_type in vocabulary.special.items() if token_type == USER_DEFINED)
    return _backend(parts, model, vocabulary, user_defined)


def _wrapping(
    kind: _Kind, roles: Mapping[str, int], add_bos: bool, add_eos: bool, add_sep: bool
) -> Wrapping | None:
    """What is put around texts, unless BOS and EOS around each are all."""
    if kind.encloses:
        first, last = (_first_of(roles, names) for names in kind.encloses)
        return read_wrapping({"type": "BertProcessing", "cls": ("", first), "sep": ("", last)})
    separator = roles.get("sep", roles.get("eos"))
    if not add_sep or separator is None or (add_bos and "bos" not in roles):
        return None
    before, after = ((roles[role],) if adds else () for role, adds in (("bos", add_bos), ("eos", add_eos)))
    pair = (Piece(None, before), Piece(0), Piece(None, (*after, separator)), Piece(1), Piece(None, after))
    return Wrapping(
        Wrapping.between(before, after).single, tuple(p for p in pair if p.ids or p.text is not None)
    )


def _first_of(roles: Mapping[str, int], names: tuple[str, ...]) -> int:
    for name in names:
        if name in roles:
            return roles[name]
    raise TokenizerError(f"{PREFIX}{ROLE_KEYS[names[-1]][0]} is missing, which each text is to get")


KINDS: dict[str, _Kind] = {
    "gpt2": _Kind(listed_bpe, rule=None),
    "gemma4": _Kind(listed_bpe, rule=PRE_TOKENIZERS["gemma4"]),
    "whitespace": _Kind(spaceless_bpe, rule=None),
    "llama": _Kind(scored_bpe, roles={"unk": 0, "bos": 1, "eos": 2}, add_bos=True),
    "bert": _Kind(
        wordpiece,
        roles={"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103},
        encloses=(("bos", "cls"), ("sep",)),
        respell=without_marks,
        settings={"model_input_names": ("input_ids", "token_type_ids", "attention_mask")},
    ),
    "t5": _Kind(unigram, roles={"pad": 0, "eos": 1, "unk": 2}, add_eos=True),
}

# Kinds that llama.cpp knows besides, and why they are none of ours.
_NO_VOCABULARY = "the file holds no vocabulary; take the tokenizer from where the model came from"
UNSUPPORTED = {
    "none": _NO_VOCABULARY,
    "no_vocab": _NO_VOCABULARY,
    "rwkv": "it takes the longest sequence of bytes, for which the tokenizers library has no model",
    "plamo2": "it weighs what texts end with, for which the tokenizers library has no model",
    "hybriddna": "it reads nucleotides by sixes, for which the tokenizers library has no model",
    "test": "it makes numbers of texts and no texts of numbers",
}
