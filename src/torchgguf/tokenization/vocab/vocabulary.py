"""The vocabulary that a file's metadata states: tokens, their types, roles and flags, all checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from gguf.constants import TokenType

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.vocab.special_tokens import (
    END_ROLES,
    END_TEXTS,
    NOT_AN_END,
    PAD_TEXTS,
    ROLE_KEYS,
    ROLE_TEXTS,
    SHOWN_TEXTS,
    STRIPPED_LEFT,
    STRIPPED_RIGHT,
    TEXT_UNLESS_MARKED,
)
from torchgguf.tokenization.vocab.values import PREFIX, is_unicode, read_value

_NORMAL = int(TokenType.NORMAL)  # an int compares five times as fast
_TYPES = frozenset({0, *TokenType})  # 0: undefined, which some converters write for unused ids
_HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN)
_SPECIAL = frozenset({*_HIDDEN, TokenType.USER_DEFINED})
# All texts that imply a purpose of their token.
_ROLE_TEXTS = {text for texts in ROLE_TEXTS.values() for text in texts}
_KNOWN_TEXTS = frozenset({*END_TEXTS, *SHOWN_TEXTS, *_ROLE_TEXTS})


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and what is special about some of them.

    Attributes:
        tokens: the tokens in the order of their ids.
        ids: the ids by token.
        special: the type of each token that is not ordinary text: control and unknown (found in texts only
            where special tokens are requested) and user-defined (found always).
        bytes_: the byte of each token that stands for a single one.
        roles: the ids by role: "bos", "eos", ...
        ends: the ids that end a generation.
        lstrip: the tokens that include the white space before them.
        rstrip: the tokens that include the white space after them.
        scores: the scores of the tokens, if the file states them.
        merges: the merges of BPE, if the file states them.
        added: how many of the tokens, the last ones, were added to a finished vocabulary.
        unused: the ids that no text becomes, and that become no text.
        notes: what the file states and cannot mean, and what is done instead.
    """

    tokens: list[str]
    ids: dict[str, int]
    special: dict[int, TokenType]
    bytes_: dict[int, bytes]
    roles: dict[str, int]
    ends: frozenset[int]
    lstrip: frozenset[str]
    rstrip: frozenset[str]
    scores: list[float] | None
    merges: list[str] | None
    added: int = 0
    unused: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    @cached_property
    def size(self) -> int:
        """The number of tokens; ids that no token has do not count, a token that is there twice does."""
        return len(self.ids) + len(self.tokens) - len({*self.tokens})

    def up_to(self, size: int) -> Vocabulary:
        """Return the vocabulary without the tokens whose ids are `size` and above."""

        def below(ids: dict[int, Any]) -> dict[int, Any]:
            return {i: value for i, value in ids.items() if i < size}

        return replace(
            self,
            tokens=self.tokens[:size],
            ids={token: i for token, i in self.ids.items() if i < size},
            special=below(self.special),
            bytes_=below(self.bytes_),
            roles={role: i for role, i in self.roles.items() if i < size},
            ends=frozenset(i for i in self.ends if i < size),
        )

    @cached_property
    def hidden(self) -> frozenset[int]:
        """The ids that `skip_special_tokens` omits: control and unknown tokens."""
        return frozenset(i for i, kind in self.special.items() if kind in _HIDDEN)


class Roles(NamedTuple):
    """The roles and ends of a `Vocabulary`."""

    roles: dict[str, int]
    ends: frozenset[int]


def read_roles(metadata: Mapping[str, Any], default_roles: Mapping[str, int]) -> Roles:
    """Read what tokens are for, without the rest of the vocabulary and most of its checks.

    Args:
        metadata: the file's metadata.
        default_roles: the ids by role where the file states none.

    Raises:
        TokenizerError: a value is invalid.
    """
    tokens = read_value(metadata, "tokens", list) or []
    types = read_value(metadata, "token_type", list, of=int, length=len(tokens)) or []
    ids = {token: i for i, token in enumerate(tokens) if token in _KNOWN_TEXTS}
    roles, _ = _roles(metadata, len(tokens), default_roles)
    special = {i: TokenType(types[i]) for i in ids.values() if types and types[i] in _SPECIAL}
    return Roles(roles, settle_types(ids, tokens, special, roles))


def read_vocabulary(
    metadata: Mapping[str, Any],
    default_roles: Mapping[str, int],
    respell: Callable[[list[str], list[int]], list[str]] | None = None,
) -> Vocabulary:
    """Read and check `tokenizer.ggml.*`.

    Args:
        metadata: the file's metadata.
        default_roles: the ids by role where the file states none.
        respell: returns the tokenizer's own tokens for the file's tokens and their types.

    Raises:
        TokenizerError: a part is missing, invalid, or contradicts another.
    """
    tokens: list[str] | None = read_value(metadata, "tokens", list)
    if not tokens:
        raise TokenizerError(f"{PREFIX}tokens is missing: the file holds no vocabulary")
    if "" in tokens:
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]  # as llama.cpp calls them
    types: list[int] = read_value(metadata, "token_type", list, of=int, length=len(tokens)) or []
    if unknown := set(types) - _TYPES:
        raise TokenizerError(f"{PREFIX}token_type: {min(unknown)} is not a token type")
    if respell is not None:
        tokens = respell(tokens, types)
    _check_texts(tokens)
    ids = dict(
        zip(tokens, range(len(tokens)), strict=True)
    )  # of the same token twice, the last, as llama.cpp
    notes = []
    if len(ids) != len(tokens):
        i, token = next((i, token) for i, token in enumerate(tokens) if ids[token] != i)
        notes.append(
            f"{PREFIX}tokens: {token!r} has the ids {i} and {ids[token]}; texts get the last of them"
        )

    marked = {i: TokenType(kind) for i, kind in enumerate(types) if kind > _NORMAL}
    special = {i: kind for i, kind in marked.items() if kind in _SPECIAL}

    roles, ignored = _roles(metadata, len(tokens), default_roles)
    ends = settle_types(ids, tokens, special, roles)
    if "pad" not in roles and (pad := _padding(ids, special, roles)) is not None:
        roles["pad"] = pad
    merges = read_value(metadata, "merges", list, of=str)
    if merges == []:
        notes.append(f"{PREFIX}merges is empty: no tokens are joined, so that texts become single characters")
    return Vocabulary(
        tokens,
        ids,
        special,
        {i: _byte(tokens[i]) for i, kind in marked.items() if kind == TokenType.BYTE},
        roles,
        ends,
        _stripped(metadata, STRIPPED_LEFT, tokens, special),
        _stripped(metadata, STRIPPED_RIGHT, tokens, special),
        read_value(metadata, "scores", list, of=(int, float), length=len(tokens)),
        merges,
        unused=frozenset(i for i, kind in marked.items() if kind == TokenType.UNUSED and i not in special),
        notes=(*notes, *ignored),
    )


def settle_types(
    ids: dict[str, int], tokens: list[str], special: dict[int, TokenType], roles: dict[str, int]
) -> frozenset[int]:
    """Complete `roles` and correct `special`, in place, by what the texts of tokens imply.

    Args:
        ids: the ids by token, at least of tokens whose texts imply a purpose.
        tokens: the tokens in the order of their ids.
        special: the types of special tokens.
        roles: the ids by role.

    Returns:
        The ids that end a generation.
    """
    for role, texts in ROLE_TEXTS.items():
        if role not in roles and (text := next((text for text in texts if text in ids), None)):
            roles[role] = ids[text]
            special[ids[text]] = TokenType.CONTROL
    marked = special.keys() | roles.values()
    by_text = {
        ids[text]
        for text in END_TEXTS
        if text in ids and (ids[text] in marked or text not in TEXT_UNLESS_MARKED)
    }
    special.update(dict.fromkeys(by_text, TokenType.CONTROL))
    special.update({ids[text]: TokenType.USER_DEFINED for text in SHOWN_TEXTS if text in ids})

    ends = by_text | {roles[role] for role in END_ROLES if role in roles}
    all_texts = {tokens[i] for i in ends}
    for others, text, kind in NOT_AN_END:
        if text in all_texts and others <= all_texts:
            ends.discard(ids[text])
            special.pop(ids[text], None)
            if kind is not TokenType.NORMAL:
                special[ids[text]] = kind
    return frozenset(ends)


def _roles(
    metadata: Mapping[str, Any], size: int, default: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """Return the ids by role, and notes about ids outside the vocabulary, which llama.cpp ignores too."""
    roles = {role: i for role, i in default.items() if i < size}
    notes = []
    for role, keys in ROLE_KEYS.items():
        for key in keys:
            if (stated := read_value(metadata, key, int)) is None:
                continue
            if 0 <= stated < size:
                roles[role] = stated
                break
            notes.append(f"{PREFIX}{key} is {stated}, but there are {size} tokens: it is ignored")
    return roles, notes


def _check_texts(tokens: Sequence[str]) -> None:
    """Check that each token is Unicode."""
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        token = next(token for token in tokens if not is_unicode(token))
        raise TokenizerError(f"{PREFIX}tokens: {token!r} is not UTF-8") from None


def _byte(token: str) -> bytes:
    if not re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
        raise TokenizerError(f"{PREFIX}tokens: {token!r} is invalid for a byte, which must be like '<0x0A>'")
    return bytes.fromhex(token[3:5])


def _padding(ids: dict[str, int], special: dict[int, TokenType], roles: dict[str, int]) -> int | None:
    named = (ids[text] for text in PAD_TEXTS if text in ids)
    fitting = (i for i in named if i in special and i != roles.get("eos"))
    return next(fitting, roles.get("unk", roles.get("eos")))


def _stripped(
    metadata: Mapping[str, Any],
    rules: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...],
    tokens: list[str],
    special: dict[int, TokenType],
) -> frozenset[str]:
    for key, part, texts, excepted in rules:
        if part in str(metadata.get(key, "")).lower():
            return frozenset(texts or (tokens[i] for i in special)) - frozenset(excepted)
    return frozenset()
