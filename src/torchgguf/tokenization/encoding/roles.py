"""The attributes of a tokenizer that read and set which token has a role, as `eos_token_id`, `eos_token`."""

from __future__ import annotations

from typing import Protocol

from tokenizers import AddedToken

from torchgguf.tokenization.vocab.vocabulary import Vocabulary


class HasRoles(Protocol):
    """What these attributes need of their owner."""

    @property
    def roles(self) -> dict[str, int]:
        """The ids by role."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens."""

    def check_id(self, token_id: int) -> int:
        """Return the id itself, or raise ValueError if it is outside the vocabulary."""


class RoleId:
    """`eos_token_id` and the like: the id of the token with the role, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._role = name.removesuffix("_token_id")

    def __get__(self, tokenizer: HasRoles, owner: type | None = None) -> int | None:
        return tokenizer.roles.get(self._role)

    def __set__(self, tokenizer: HasRoles, token_id: int | None) -> None:
        if token_id is None:
            tokenizer.roles.pop(self._role, None)
        else:
            tokenizer.roles[self._role] = tokenizer.check_id(token_id)


class RoleToken:
    """`eos_token` and the like: the text of the token with the role, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._role = name.removesuffix("_token")

    def __get__(self, tokenizer: HasRoles, owner: type | None = None) -> str | None:
        token_id = tokenizer.roles.get(self._role)
        return None if token_id is None else tokenizer.vocabulary.tokens[token_id]

    def __set__(self, tokenizer: HasRoles, token: str | AddedToken | None) -> None:
        text = token.content if isinstance(token, AddedToken) else token
        ids = tokenizer.vocabulary.ids
        if text is None:
            tokenizer.roles.pop(self._role, None)
        elif text in ids:
            tokenizer.roles[self._role] = ids[text]
        else:
            raise ValueError(
                f"{text!r} is not in the vocabulary, where the {self._role} token must be: "
                f"add_special_tokens({{'{self._role}_token': {text!r}}}) adds it"
            )
