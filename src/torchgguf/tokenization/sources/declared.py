"""Tokens that the files beside tokenizer.json declare: special ones, their roles, and others to add."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.sources.files import TokenizerFiles

# The roles of tokens in these files, as `bos_token` and so on.
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
_DECODER = "added_tokens_decoder"


@dataclass(frozen=True)
class TokenizerClass:
    """The defaults of a class of transformers' tokenizers, where its files state nothing else.

    Attributes:
        roles: the tokens by role.
        padding_side: where rows are padded.
        adds: the roles of the tokens that are added around texts; None if files must state it.
        sentinels: how many tokens there are for gaps in texts.
        inputs: the fields of an encoding.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    padding_side: str = "right"
    adds: frozenset[str] | None = None
    sentinels: int = 0
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")


TOKENIZER_CLASSES = {
    "GPT2Tokenizer": TokenizerClass(dict.fromkeys(("unk", "bos", "eos"), "<|endoftext|>")),
    "Qwen2Tokenizer": TokenizerClass(dict.fromkeys(("unk", "eos", "pad"), "<|endoftext|>")),
    "LlamaTokenizer": TokenizerClass(
        {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, padding_side="left", adds=frozenset({"bos"})
    ),
    "BertTokenizer": TokenizerClass(
        {role: f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")},
        inputs=("input_ids", "token_type_ids", "attention_mask"),
    ),
    "T5Tokenizer": TokenizerClass(
        {"unk": "<unk>", "eos": "</s>", "pad": "<pad>"}, adds=frozenset({"eos"}), sentinels=100
    ),
}
# `model_type` in config.json: the class where tokenizer_config.json does not name one.
_CLASSES = {
    "gpt2": "GPT2Tokenizer",
    **dict.fromkeys(("bert", "electra", "nomic_bert"), "BertTokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("t5", "mt5", "umt5"), "T5Tokenizer"),
}


def class_name(files: TokenizerFiles) -> str:
    """Return the tokenizer's class in transformers, without "Fast"; empty if no file states it."""
    stated = files.config.get("tokenizer_class") or _CLASSES.get(str(files.model.get("model_type")), "")
    return str(stated).removesuffix("Fast")


def class_of(files: TokenizerFiles) -> TokenizerClass:
    """Return the defaults of the tokenizer's class."""
    return TOKENIZER_CLASSES.get(class_name(files), TokenizerClass())


@dataclass(frozen=True)
class Declarations:
    """The tokens that files declare.

    Attributes:
        files: the files.
        special: the tokens by role that replace those of the files.
    """

    files: TokenizerFiles
    special: Mapping[str, str]

    @property
    def roles(self) -> dict[str, AddedToken]:
        """The tokens by role: `bos`, `eos` and the like, and others that are called `..._token`."""
        order = dict.fromkeys(f"{role}_token" for role in ROLES)
        implied = {f"{role}_token": text for role, text in class_of(self.files).roles.items()}
        return {
            name.removesuffix("_token"): as_token(entry, special=True)
            for name, entry in {**order, **implied, **self._stated}.items()
            if entry and (name in order or (name.endswith("_token") and isinstance(entry, str | dict)))
        }

    @property
    def stated_roles(self) -> set[str]:
        """The roles that the files state, rather than the tokenizer's class."""
        return {role for role in ROLES if f"{role}_token" in self._stated}

    @property
    def special_tokens(self) -> list[AddedToken]:
        """The tokens with a role, and others that are listed as special."""
        listed: list[Any] = []
        for name in _LISTS:
            rows = self._stated.get(name) or []
            if not isinstance(rows, list | dict):
                raise TokenizerError(f"{name} must hold tokens, got {rows!r}")
            listed += rows.values() if isinstance(rows, dict) else rows
        return [*self.roles.values(), *(as_token(entry, special=True) for entry in listed)]

    @property
    def sentinels(self) -> list[AddedToken]:
        """T5's tokens for gaps in a text, which follow those of its SentencePiece model."""
        count = self.files.config.get("extra_ids", class_of(self.files).sentinels)
        if not isinstance(count, int) or not 0 <= count <= 1 << 16:
            raise TokenizerError(f"tokenizer_config.json: extra_ids must be a small number, got {count!r}")
        return [as_token(f"<extra_id_{i}>", special=True) for i in reversed(range(count))]

    def other_tokens(self, known: Collection[str]) -> dict[int, AddedToken]:
        """Return the tokens that are declared with ids, in order; `known` are those of tokenizer.json."""
        if _DECODER in self.files.config:
            return {i: as_token(row) for i, (_, row) in _by_id(_DECODER, self.files.config[_DECODER], 0)}
        special = {token.content for token in self.special_tokens}
        rows = _by_id("added_tokens.json", self.files.added, 1)
        return {i: as_token(text, special=text in special) for i, (text, _) in rows if text not in known}

    @property
    def _stated(self) -> Mapping[str, Any]:
        """The entries of the files and of `special`. A list by ids replaces the older, separate file."""
        older = {} if _DECODER in self.files.config else self.files.special
        return {
            **self.files.config,
            **older,
            **{f"{role}_token": text for role, text in self.special.items()},
        }


def as_token(entry: Any, special: bool | None = None) -> AddedToken:
    """Return a token. A special one is found before text is normalized.

    Args:
        entry: its text, or a dict of its text and options.
        special: whether the token is special, in place of what a dict states.

    Raises:
        TokenizerError: the entry is invalid.
    """
    if not isinstance(entry, str | dict):
        raise TokenizerError(f"{entry!r} is not a token: it must be a text or an object with one")
    flags = {"content": entry} if isinstance(entry, str) else entry
    try:
        flags = {name: flags[name] for name in _FLAGS if name in flags}
        if special is not None:
            flags = {"normalized": not special, **flags, "special": special}
        token = AddedToken(**flags)
    except TypeError as error:
        raise TokenizerError(f"{entry!r} is not a token: {error}") from None
    if not token.content:
        raise TokenizerError(f"{entry!r} is not a token: it has no text")
    return token


def _by_id(name: str, rows: Any, place: int) -> list[tuple[int, Any]]:
    """Return the rows with their ids, which are the keys (0) or the values (1) of a dict."""
    try:
        pairs = sorted(((int(row[place]), row) for row in rows.items()), key=lambda pair: pair[0])
    except (AttributeError, TypeError, ValueError):
        raise TokenizerError(f"{name} must hold tokens and their ids") from None
    if pairs and pairs[0][0] < 0:
        raise TokenizerError(f"{name}: {pairs[0][0]} is not an id")
    return pairs
