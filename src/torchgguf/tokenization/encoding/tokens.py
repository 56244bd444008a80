"""`TokenTable`: the tokens of a tokenizer by their ids, texts and roles."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, Self, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import AddedToken

from torchgguf.tokenization.sources.declared import ROLES
from torchgguf.tokenization.sources.source import TokenizerSource
from torchgguf.tokenization.vocab.vocabulary import Vocabulary

TokenIds: TypeAlias = SupportsIndex | Iterable[SupportsIndex] | torch.Tensor | npt.NDArray[np.integer[Any]]


class TokenTable:
    """The tokens that a source describes, under the names of transformers' tokenizers.

    A pickle holds the source, which is read again where the pickle is loaded. A deep copy shares the source
    and what was read from it, because neither changes.

    Attributes:
        source: where the tokens come from; `add` replaces it.
        model: what the source describes; `add` replaces it.
        roles: the ids by role: "bos", "eos", ...
    """

    def __init__(self, source: TokenizerSource) -> None:
        self.source = source
        self.model = source.read()
        self.roles = dict(self.vocabulary.roles)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens, and what is special about some of them."""
        return self.model.vocabulary

    @property
    def vocab_size(self) -> int:
        """The number of tokens without those that were added to a finished vocabulary."""
        return len(self) - self.vocabulary.added

    def __len__(self) -> int:
        return self.vocabulary.size

    @property
    def vocab(self) -> dict[str, int]:
        """The ids of all tokens."""
        return self.get_vocab()

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of all tokens."""
        return dict(self.vocabulary.ids)

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens that texts are searched for first."""
        return self.get_added_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that texts are searched for first, with the options of the search, by id."""
        return dict(sorted(self.model.backend.get_added_tokens_decoder().items()))

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of the tokens that texts are searched for first."""
        return {self.vocabulary.tokens[i]: i for i in sorted(self.vocabulary.special)}

    @property
    def all_special_ids(self) -> list[int]:
        """The ids that `skip_special_tokens` omits, in order."""
        return sorted(self.vocabulary.hidden)

    @property
    def all_special_tokens(self) -> list[str]:
        """The tokens that `skip_special_tokens` omits, in the order of their ids."""
        return [self.vocabulary.tokens[i] for i in self.all_special_ids]

    @property
    def extra_special_tokens(self) -> list[str]:
        """The tokens that `skip_special_tokens` omits and that have no role in transformers."""
        named = self.special_tokens_map.values()
        return [token for token in self.all_special_tokens if token not in named]

    @property
    def additional_special_tokens(self) -> list[str]:
        """The older name of `extra_special_tokens`."""
        return self.extra_special_tokens

    @property
    def eog_token_ids(self) -> list[int]:
        """The ids that end a generation, in order: EOS, end of turn, and others that llama.cpp knows."""
        return sorted(self.vocabulary.ends)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The tokens with a role in transformers, by names such as "bos_token"."""
        return {f"{role}_token": token for role in ROLES if (token := self.token_of(role)) is not None}

    def token_of(self, role: str) -> str | None:
        """Return the text of the token with this role, or None if no token has it."""
        token_id = self.roles.get(role)
        return None if token_id is None else self.vocabulary.tokens[token_id]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Return the id of a token, or the ids of several; a missing token has that of the unknown token."""
        ids, unknown = self.vocabulary.ids, self.roles.get("unk")
        if isinstance(tokens, str):
            return ids.get(tokens, unknown)
        return [ids.get(token, unknown) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return the token with an id, or the tokens with several, as the vocabulary spells them.

        An id beyond the vocabulary, which a model with more embeddings than tokens may return, is None.

        Raises:
            ValueError: an id is negative.
        """
        if _is_id(ids):
            return self._text(operator.index(ids))
        hidden = self.vocabulary.hidden if skip_special_tokens else ()
        return [self._text(i) for i in flat(ids) if i not in hidden]

    def _text(self, token_id: int) -> str | None:
        if token_id < 0:
            raise ValueError(f"{token_id} is not a token id: it is negative")
        tokens = self.vocabulary.tokens
        return tokens[token_id] if token_id < len(tokens) else None

    def check_id(self, token_id: int) -> int:
        """Return the id itself.

        Raises:
            ValueError: the id is outside the vocabulary.
        """
        size = len(self.vocabulary.tokens)
        if not 0 <= token_id < size:
            raise ValueError(f"{token_id} is not a token id: there are {size} tokens")
        return token_id

    def add(self, tokens: Sequence[AddedToken]) -> int:
        """Search texts for these tokens, and append those that the vocabulary lacks.

        Returns:
            How many tokens were appended.

        Raises:
            TokenizerError: the source does not support an option of a token.
        """
        before = len(self)
        self.source = self.source.with_tokens(tokens)
        self.model = self.source.read()
        return len(self) - before

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "roles": self.roles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.model = self.source.read()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self) | {"roles": dict(self.roles)})
        return copied


def is_batch(token_ids: Any) -> bool:
    """Return whether these are several sequences of ids: two dimensions, or sequences in a list or tuple."""
    if isinstance(token_ids, torch.Tensor | np.ndarray):
        return token_ids.ndim > 1
    if not isinstance(token_ids, list | tuple) or not token_ids:
        return False
    first = token_ids[0]
    return first.ndim > 0 if isinstance(first, torch.Tensor | np.ndarray) else isinstance(first, list | tuple)


def flat(token_ids: TokenIds) -> list[int]:
    """Return one id, or several in an iterable, tensor or array, as a list.

    Raises:
        ValueError: there are several sequences.
    """
    if isinstance(token_ids, torch.Tensor | np.ndarray):
        if token_ids.ndim > 1 and len(token_ids) != 1:
            raise ValueError(f"token_ids must be one sequence, got a batch of shape {tuple(token_ids.shape)}")
        token_ids = token_ids.flatten().tolist()
    several: Any = [token_ids] if _is_id(token_ids) else token_ids
    return [operator.index(i) for i in several]


def _is_id(token_ids: Any) -> bool:
    return hasattr(token_ids, "__index__") and not isinstance(token_ids, torch.Tensor | np.ndarray)
