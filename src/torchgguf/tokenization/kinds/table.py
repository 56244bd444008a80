"""One row for each `tokenizer.ggml.model`: what its files leave unstated, and how its text becomes tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gguf.constants import TokenType
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Model

from torchgguf.container.projectors import explain_projector
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.bpe import listed_bpe, scored_bpe, spaceless_bpe
from torchgguf.tokenization.kinds.library import check_added, library_errors
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.kinds.parts import Parts
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, pre_tokenizer
from torchgguf.tokenization.kinds.unigram import unigram
from torchgguf.tokenization.kinds.wordpiece import without_marks, wordpiece
from torchgguf.tokenization.kinds.wrapping import Piece, Wrapping, read_wrapping
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.values import PREFIX, read_flag, read_value
from torchgguf.tokenization.vocab.vocabulary import Roles, Vocabulary, read_roles, read_vocabulary

_NO_RULE = PreTokenizer(())


@dataclass(frozen=True)
class _Kind:
    """A row of the table: its parts, and what holds for its files unless they state otherwise.

    Attributes:
        parts: builds what turns text into tokens.
        rule: how text is split; None if `tokenizer.ggml.pre` names the rule.
        roles: the ids by role.
        add_bos: whether BOS is added before each text.
        add_eos: whether EOS is added after each text.
        encloses: texts are put between two tokens, whatever flags state: each is the first of these roles
            that a token has.
        respell: returns the kind's own tokens for the file's tokens and their types.
        settings: the defaults of the tokenizer's attributes.
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
    """Build the tokenizer that the metadata describes.

    Args:
        metadata: the file's metadata.
        pre: a splitting rule, or the name of one, that replaces the file's.

    Raises:
        TokenizerError: the metadata is incomplete, invalid or unsupported.
    """
    kind = _kind(metadata)
    rule = _rule(kind, metadata, pre)
    vocabulary = read_vocabulary(metadata, kind.roles, kind.respell)
    with library_errors(f"{PREFIX}tokens are invalid", building=True):
        parts = kind.parts(vocabulary, rule, metadata)
        backend = _backend(parts, parts.model, vocabulary, vocabulary.special)
    add_bos = rule.always_adds_bos or read_flag(metadata, "add_bos_token", kind.add_bos or rule.add_bos)
    add_eos = read_flag(metadata, "add_eos_token", kind.add_eos)
    add_sep = read_flag(metadata, "add_sep_token", rule.add_sep)
    return TokenizerModel(
        vocabulary,
        backend,
        partial(_plain_backend, parts, vocabulary),
        parts.spell,
        add_bos,
        add_eos,
        parts.add_space_prefix,
        _wrapping(kind, vocabulary.roles, add_bos, add_eos, add_sep),
        parts.spell_special,
    )


def presumed_flags(kind: str, pre: str | None) -> dict[str, bool]:
    """Return whether readers add BOS and EOS by default.

    Args:
        kind: the kind of the tokenizer, `tokenizer.ggml.model`.
        pre: the name of its splitting rule.
    """
    row = KINDS[kind]
    rule = row.rule or pre_tokenizer(pre or "default")
    adds_bos = row.add_bos or rule.add_bos or rule.always_adds_bos
    return {"bos": adds_bos or bool(row.encloses), "eos": row.add_eos or bool(row.encloses)}


def presumed_settings(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults of the attributes of a tokenizer of this kind.

    Raises:
        TokenizerError: the kind is unsupported.
    """
    return _kind(metadata).settings


def own_tokens(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> list[str]:
    """Return the tokens as the file's kind of tokenizer spells them."""
    respell = _kind(metadata).respell
    return respell(tokens, types) if respell else tokens


def read_tokens(metadata: Mapping[str, Any]) -> Roles:
    """Return what tokens are for, without reading the rest of the vocabulary.

    Raises:
        TokenizerError: the metadata is incomplete, invalid or unsupported.
    """
    return read_roles(metadata, _kind(metadata).roles)


def _kind(metadata: Mapping[str, Any]) -> _Kind:
    name = read_value(metadata, "model", str)
    if name is None:
        missing = f"{PREFIX}model is missing: the file holds no tokenizer"
        raise TokenizerError(explain_projector(metadata) or missing)
    if reason := UNSUPPORTED_KINDS.get(name):
        raise TokenizerError(f"{PREFIX}model is {name!r}, which is unsupported: {reason}")
    if name not in KINDS:
        raise TokenizerError(f"{PREFIX}model is {name!r}; supported are {', '.join(map(repr, KINDS))}")
    return KINDS[name]


def _rule(kind: _Kind, metadata: Mapping[str, Any], override: str | PreTokenizer | None) -> PreTokenizer:
    if kind.rule is not None:
        if override is not None:
            raise TokenizerError(
                f"pre={override!r}: no rule for splitting text is used where {PREFIX}model is "
                f"{read_value(metadata, 'model', str)!r}"
            )
        return kind.rule
    if isinstance(override, PreTokenizer):
        return override
    name = override or read_value(metadata, "pre", str)
    if name is None:
        warnings.warn(
            f"{PREFIX}pre is missing: splitting text by the rule 'default', as llama.cpp does, which may not "
            "be the model's own. Name the right one: AutoTokenizer.from_pretrained(..., pre='llama-bpe')",
            stacklevel=2,
        )
        name = "default"
    return pre_tokenizer(name)


def _backend(parts: Parts, model: Model, vocabulary: Vocabulary, special: Collection[int]) -> Tokenizer:
    backend = Tokenizer(model)
    backend.normalizer = parts.normalizer
    backend.pre_tokenizer = parts.pre_tokenizer
    backend.decoder = parts.decoder
    # Not normalized: the text is searched for them as it is. Of two that overlap the one further left is
    # found, as in the original tokenizers; llama.cpp finds the longer.
    check_added(f"{PREFIX}tokens", [vocabulary.tokens[i] for i in special])
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
    user_defined = [i for i, token_type in vocabulary.special.items() if token_type == TokenType.USER_DEFINED]
    return _backend(parts, model, vocabulary, user_defined)


def _wrapping(
    kind: _Kind, roles: Mapping[str, int], add_bos: bool, add_eos: bool, add_sep: bool
) -> Wrapping | None:
    """Return what is added around texts, None if that is only BOS and EOS around each."""
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
    raise TokenizerError(f"{PREFIX}{ROLE_KEYS[names[-1]][0]} is missing, but each text needs that token")


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

# Other kinds of llama.cpp, and why they are unsupported.
_NO_VOCABULARY = "the file holds no vocabulary; load the tokenizer from where the model came from"
UNSUPPORTED_KINDS = {
    "none": _NO_VOCABULARY,
    "no_vocab": _NO_VOCABULARY,
    "rwkv": "it finds the longest sequence of bytes, for which the tokenizers library has no model",
    "plamo2": "it scores what texts end with, for which the tokenizers library has no model",
    "hybriddna": "it reads nucleotides by sixes, for which the tokenizers library has no model",
    "test": "it turns texts into numbers and no numbers into texts",
}
