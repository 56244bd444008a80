"""Tokens by their ids, texts and roles."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import AddedToken

from torchgguf.tokenization.kinds.table import TokenizerModel
from torchgguf.tokenization.vocab.vocabulary import Vocabulary

TokenIds: TypeAlias = SupportsIndex | Iterable[SupportsIndex] | torch.Tensor | npt.NDArray[np.integer[Any]]


class _RoleId:
    """`tokenizer.eos_token_id` and the like: the id that has the role, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_token_id")

    def __get__(self, tokenizer: TokenLookup, owner: type | None = None) -> int | None:
        return tokenizer.roles.get(self.role)

    def __set__(self, tokenizer: TokenLookup, token_id: int | None) -> None:
        if token_id is None:
            tokenizer.roles.pop(self.role, None)
        else:
            tokenizer.roles[self.role] = tokenizer.check_id(token_id)


class _RoleToken:
    """`tokenizer.eos_token` and the like: the text of the token that has the role, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_token")

    def __get__(self, tokenizer: TokenLookup, owner: type | None = None) -> str | None:
        token_id = tokenizer.roles.get(self.role)
        return None if token_id is None else tokenizer.vocabulary.tokens[token_id]

    def __set__(self, tokenizer: TokenLookup, token: str | AddedToken | None) -> None:
        text = token.content if isinstance(token, AddedToken) else token
        if text is None:
            tokenizer.roles.pop(self.role, None)
        elif text in tokenizer.vocabulary.ids:
            tokenizer.roles[self.role] = tokenizer.vocabulary.ids[text]
        else:
            raise ValueError(
                f"{text!r} is not in the vocabulary, so it cannot be the {self.role} token: "
                f"add_special_tokens({{'{self.role}_token': {text!r}}}) adds it"
            )


class TokenLookup:
    """A vocabulary with the names that transformers' tokenizers give its parts.

    `roles`: "bos", "eos", ... -> id, which `bos_token_id`, `bos_token` and so on read and set.
    """

    _model: TokenizerModel
    roles: dict[str, int]

    bos_token_id, bos_token = _RoleId(), _RoleToken()
    eos_token_id, eos_token = _RoleId(), _RoleToken()
    unk_token_id, unk_token = _RoleId(), _RoleToken()
    sep_token_id, sep_token = _RoleId(), _RoleToken()
    pad_token_id, pad_token = _RoleId(), _RoleToken()
    cls_token_id, cls_token = _RoleId(), _RoleToken()
    mask_token_id, mask_token = _RoleId(), _RoleToken()
    eot_token_id, eot_token = _RoleId(), _RoleToken()
    eom_token_id, eom_token = _RoleId(), _RoleToken()
    fim_pre_token_id, fim_pre_token = _RoleId(), _RoleToken()
    fim_suf_token_id, fim_suf_token = _RoleId(), _RoleToken()
    fim_mid_token_id, fim_mid_token = _RoleId(), _RoleToken()
    fim_pad_token_id, fim_pad_token = _RoleId(), _RoleToken()
    fim_rep_token_id, fim_rep_token = _RoleId(), _RoleToken()
    fim_sep_token_id, fim_sep_token = _RoleId(), _RoleToken()
    pad_token_type_id = 0

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens, and what is special about some of them."""
        return self._model.vocabulary

    @property
    def vocab_size(self) -> int:
        """The number of tokens without those that were added to a finished vocabulary."""
        return len(self) - self.vocabulary.added

    def __len__(self) -> int:
        return len(self.vocabulary.ids)

    def get_vocab(self) -> dict[str, int]:
        """Every token's id."""
        return dict(self.vocabulary.ids)

    @property
    def vocab(self) -> dict[str, int]:
        """Every token's id."""
        return self.get_vocab()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens that texts are searched for before all else."""
        return self.get_added_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that texts are searched for before all else, with how that is done, by their ids."""
        return dict(sorted(self._model.backend.get_added_tokens_decoder().items()))

    def get_added_vocab(self) -> dict[str, int]:
        """The ids of the tokens that texts are searched for before all else."""
        return {self.vocabulary.tokens[i]: i for i in sorted(self.vocabulary.special)}

    @property
    def all_special_ids(self) -> list[int]:
        """The ids that `skip_special_tokens` leaves out, in order."""
        return sorted(self.vocabulary.hidden)

    @property
    def all_special_tokens(self) -> list[str]:
        """The tokens that `skip_special_tokens` leaves out, by their ids' order."""
        return [self.vocabulary.tokens[i] for i in self.all_special_ids]

    @property
    def extra_special_tokens(self) -> list[str]:
        """The tokens that `skip_special_tokens` leaves out and that play none of transformers' roles."""
        named = self.special_tokens_map.values()
        return [token for token in self.all_special_tokens if token not in named]

    @property
    def additional_special_tokens(self) -> list[str]:
        """The same by its older name."""
        return self.extra_special_tokens

    @property
    def eog_token_ids(self) -> list[int]:
        """The ids that end a generation, in order: EOS, end of turn, and what llama.cpp knows besides."""
        return sorted(self.vocabulary.ends)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The tokens of transformers' roles, by names such as "bos_token"."""
        names = [f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
        return {name: token for name in names if (token := getattr(self, name)) is not None}

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or the ids of several: the unknown token's for one that is not there."""
        if isinstance(tokens, str):
            return self.vocabulary.ids.get(tokens, self.unk_token_id)
        return [self.vocabulary.ids.get(token, self.unk_token_id) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token with an id, or the tokens with several, as they are written in the vocabulary."""
        if _is_id(ids):
            return self.vocabulary.tokens[self.check_id(operator.index(ids))]
        hidden = self.vocabulary.hidden if skip_special_tokens else ()
        return [self.vocabulary.tokens[self.check_id(i)] for i in flat(ids) if i not in hidden]

    def check_id(self, token_id: int) -> int:
        """The id itself. ValueError if no token has it."""
        size = len(self.vocabulary.tokens)
        if not 0 <= token_id < size:
            raise ValueError(f"{token_id} is no token id: there are {size} tokens")
        return token_id


def is_batch(token_ids: Any) -> bool:
    """Whether these are several sequences of ids: of two dimensions, or in a list or tuple."""
    if isinstance(token_ids, torch.Tensor | np.ndarray):
        return token_ids.ndim > 1
    if not isinstance(token_ids, list | tuple) or not token_ids:
        return False
    first = token_ids[0]
    return first.ndim > 0 if isinstance(first, torch.Tensor | np.ndarray) else isinstance(first, list | tuple)


def flat(token_ids: TokenIds) -> list[int]:
    """One id, or several in an iterable, tensor or array, as a list. ValueError for several sequences."""
    if isinstance(token_ids, torch.Tensor | np.ndarray):
        if token_ids.ndim > 1 and len(token_ids) != 1:
            raise ValueError(f"this takes one sequence, not a batch of shape {tuple(token_ids.shape)}")
        token_ids = token_ids.flatten().tolist()
    several: Any = [token_ids] if _is_id(token_ids) else token_ids
    return [operator.index(i) for i in several]


def _is_id(token_ids: Any) -> bool:
    return hasattr(token_ids, "__index__") and not isinstance(token_ids, torch.Tensor | np.ndarray)
