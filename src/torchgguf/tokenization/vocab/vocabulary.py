"""The vocabulary that a file's metadata states: tokens, their types, roles and flags, all checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

PREFIX = "tokenizer.ggml."
CONTROL, UNKNOWN, USER_DEFINED = TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED
_NORMAL = int(TokenType.NORMAL)  # to compare with, five times as fast
_TYPES = frozenset({0, *TokenType})  # 0: undefined, which some converters write for unused ids
_SPECIAL = frozenset({CONTROL, UNKNOWN, USER_DEFINED})
# All texts that say something of what a token is for.
_TELLING = frozenset({*END_TEXTS, *SHOWN_TEXTS, *(text for texts in ROLE_TEXTS.values() for text in texts)})


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and what is special about some of them.

    `special`: the type of each token that is no ordinary text: control, unknown (matched in text only where
    special tokens are asked for) and user-defined (matched always). `bytes_`: the byte of each token that
    stands for a single one. `roles`: "bos", "eos", ... -> id. `ends`: the ids that end a generation.
    `lstrip`, `rstrip`: the tokens that swallow the white space before or after them. `added`: how many of the
    tokens, the last ones, were added to a finished vocabulary. `unused`: the ids that no text becomes.
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

    @cached_property
    def hidden(self) -> frozenset[int]:
        """The ids that `skip_special_tokens` leaves out: control and unknown tokens."""
        return frozenset(i for i, kind in self.special.items() if kind in (CONTROL, UNKNOWN))


class Roles(NamedTuple):
    """Some of what `Vocabulary` holds."""

    roles: dict[str, int]
    ends: frozenset[int]


def read_roles(metadata: Mapping[str, Any], default_roles: Mapping[str, int]) -> Roles:
    """What the tokens are for, without the rest of the vocabulary and most of its checks."""
    tokens = read(metadata, "tokens", list) or []
    types = read(metadata, "token_type", list, of=int, length=len(tokens)) or []
    ids = {token: i for i, token in enumerate(tokens) if token in _TELLING}
    roles = _roles(metadata, len(tokens), default_roles)
    special = {i: TokenType(types[i]) for i in ids.values() if types and types[i] in _SPECIAL}
    return Roles(roles, settle_types(ids, tokens, special, roles))


def read_vocabulary(
    metadata: Mapping[str, Any],
    default_roles: Mapping[str, int],
    respell: Callable[[list[str], list[int]], list[str]] | None = None,
) -> Vocabulary:
    """Read and check `tokenizer.ggml.*`. TokenizerError if a part is missing or contradicts another.

    `default_roles`: ids that the kind of tokenizer has unless the file says otherwise. `respell`: makes its
    own tokens of the file's and their types.
    """
    tokens: list[str] | None = read(metadata, "tokens", list)
    if not tokens:
        raise TokenizerError(f"{PREFIX}tokens is missing: the file holds no vocabulary")
    if "" in tokens:
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]  # as llama.cpp calls them
    types: list[int] = read(metadata, "token_type", list, of=int, length=len(tokens)) or []
    if unknown := set(types) - _TYPES:
        raise TokenizerError(f"{PREFIX}token_type: {min(unknown)} is no token type")
    if respell is not None:
        tokens = respell(tokens, types)
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        i, token = next((i, token) for i, token in enumerate(tokens) if ids[token] != i)
        raise TokenizerError(f"{PREFIX}tokens: {token!r} stands at {i} and at {ids[token]}")

    marked = {i: TokenType(kind) for i, kind in enumerate(types) if kind > _NORMAL}
    special = {i: kind for i, kind in marked.items() if kind in _SPECIAL}

    roles = _roles(metadata, len(tokens), default_roles)
    ends = settle_types(ids, tokens, special, roles)
    if "pad" not in roles and (pad := _padding(ids, special, roles)) is not None:
        roles["pad"] = pad
    return Vocabulary(
        tokens,
        ids,
        special,
        {i: _byte(tokens[i]) for i, kind in marked.items() if kind == TokenType.BYTE},
        roles,
        ends,
        _stripped(metadata, STRIPPED_LEFT, tokens, special),
        _stripped(metadata, STRIPPED_RIGHT, tokens, special),
        read(metadata, "scores", list, of=(int, float), length=len(tokens)),
        read(metadata, "merges", list, of=str),
        unused=frozenset(i for i, kind in marked.items() if kind == TokenType.UNUSED),
    )


def read(
    metadata: Mapping[str, Any],
    name: str,
    kind: type,
    *,
    of: type | tuple[type, ...] = str,
    length: int | None = None,
) -> Any:
    """A value below `tokenizer.ggml.`, None if it is missing. TokenizerError if it is of another kind."""
    value = metadata.get(PREFIX + name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TokenizerError(f"{PREFIX}{name} must be a {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, list):
        if length is not None and len(value) != length:
            raise TokenizerError(f"{PREFIX}{name} has {len(value)} entries for {length} tokens")
        if odd := next((t for t in set(map(type, value)) if not issubclass(t, of) or t is bool), None):
            raise TokenizerError(f"{PREFIX}{name} holds a {odd.__name__}")
    return value


def read_flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """A flag below `tokenizer.ggml.`, the default if it is missing. TokenizerError if it is no bool."""
    stated = read(metadata, name, bool)
    return default if stated is None else bool(stated)


def _roles(metadata: Mapping[str, Any], size: int, default: Mapping[str, int]) -> dict[str, int]:
    roles = {role: i for role, i in default.items() if i < size}
    for role, keys in ROLE_KEYS.items():
        for key in keys:
            if (stated := read(metadata, key, int)) is not None:
                if not 0 <= stated < size:
                    raise TokenizerError(f"{PREFIX}{key} is {stated}, but there are {size} tokens")
                roles[role] = stated
                break
    return roles


def settle_types(
    ids: dict[str, int], tokens: list[str], special: dict[int, TokenType], roles: dict[str, int]
) -> frozenset[int]:
    """Complete `roles` and correct `special` by what the tokens' texts say; return the ids of the ends."""
    for role, texts in ROLE_TEXTS.items():
        if role not in roles and (text := next((text for text in texts if text in ids), None)):
            roles[role] = ids[text]
            special[ids[text]] = CONTROL
    marked = special.keys() | roles.values()
    by_text = {
        ids[text]
        for text in END_TEXTS
        if text in ids and (ids[text] in marked or text not in TEXT_UNLESS_MARKED)
    }
    special.update(dict.fromkeys(by_text, CONTROL))
    special.update({ids[text]: USER_DEFINED for text in SHOWN_TEXTS if text in ids})

    ends = by_text | {roles[role] for role in END_ROLES if role in roles}
    all_texts = {tokens[i] for i in ends}
    for others, text, kind in NOT_AN_END:
        if text in all_texts and others <= all_texts:
            ends.discard(ids[text])
            special.pop(ids[text], None)
            if kind is not TokenType.NORMAL:
                special[ids[text]] = kind
    return frozenset(ends)


def _byte(token: str) -> bytes:
    if not re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
        raise TokenizerError(f"{PREFIX}tokens: {token!r} has the type of a byte, but is not like '<0x0A>'")
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
