"""`MetadataSource`: tokenizers from the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gguf.constants import TokenType
from tokenizers import AddedToken

from torchgguf.container import Metadata
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.kinds.table import own_tokens, presumed_settings, read_model
from torchgguf.tokenization.sources.chat_templates import read_templates
from torchgguf.tokenization.sources.files import TOKENIZER_CONFIG
from torchgguf.tokenization.sources.source import (
    ADDED_SCORE,
    PADDING_SCORE,
    TYPES,
    Defaults,
    checked_size,
    padding_tokens,
    warn_of_rowless,
)
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.values import PREFIX


@dataclass(frozen=True)
class MetadataSource:
    """The metadata of a GGUF file.

    Attributes:
        stated: the part of the metadata that concerns a tokenizer.
        pre: replaces its splitting rule.
        defaults: the defaults of the tokenizer's attributes.
        config: the entries of a tokenizer_config.json.
        size: the model's number of embeddings, if it is known.
        added: how many tokens were added to those of the file.
        place: the file, as warnings name it.
        own: how many tokens are the vocabulary's own, where files beside it add others.
    """

    stated: Metadata
    pre: str | PreTokenizer | None
    defaults: Defaults
    config: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    added: int = 0
    place: str = ""
    own: int | None = None

    @classmethod
    def of(
        cls, metadata: Mapping[str, Any], pre: str | PreTokenizer | None, place: str = ""
    ) -> MetadataSource:
        """Return the source for a file's metadata.

        Args:
            metadata: all of the metadata.
            pre: a splitting rule, or the name of one, that replaces the file's.
            place: the file, as warnings name it.

        Raises:
            TokenizerError: the file has no tokenizer, or one that is unsupported.
        """
        length_key = f"{metadata.get('general.architecture')}.context_length"
        part = _tokenizer_part(metadata, "general.name", "general.architecture", length_key)
        length = part.get(length_key)
        templates, notes = read_templates(part)
        defaults = Defaults(templates, notes=notes, **presumed_settings(part))
        if isinstance(length, int):
            defaults = replace(defaults, model_max_length=length)
        prefix = part.get(PREFIX + "add_space_prefix")
        return cls(part, pre, defaults, {} if prefix is None else {"add_prefix_space": prefix}, place=place)

    def read(self) -> TokenizerModel:
        """Build the tokenizer that the metadata describes. Raise TokenizerError if it is invalid."""
        model = read_model(self.stated, self.pre)
        return replace(model, vocabulary=replace(model.vocabulary, added=self.added))

    def with_tokens(self, tokens: Sequence[AddedToken]) -> MetadataSource:
        """Return this source with more tokens.

        Raises:
            TokenizerError: a token has options that no GGUF file can state.
        """
        kinds: dict[str, TokenType] = {}
        for token in tokens:
            if token.lstrip or token.rstrip or token.single_word:
                raise TokenizerError(
                    f"{token.content!r} has lstrip, rstrip or single_word set, which GGUF files do not "
                    "support: pass it as a string"
                )
            kinds[token.content] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
        names, types = self._list("tokens", ""), self._list("token_type", int(TokenType.NORMAL))
        places = {name: i for i, name in enumerate(own_tokens(self.stated, names, types)) if name in kinds}
        for name, i in places.items():
            types[i] = int(kinds[name])
        new = {name: kind for name, kind in kinds.items() if name not in places}
        stated = _extended(
            self.stated, [*names, *new], [*types, *map(int, new.values())], [ADDED_SCORE] * len(new)
        )
        return replace(self, stated=stated, added=self.added + len(new))

    def metadata(self, model: TokenizerModel, vocab_size: int | None) -> Metadata:
        """Return each value and type of the file, with more tokens where the model has more embeddings."""
        metadata = _tokenizer_part(self.stated)
        if isinstance(self.pre, str):
            metadata[PREFIX + "pre"] = self.pre
        names = self._list("tokens", "")
        own = len(names) if self.own is None or self.added else self.own
        if vocab_size is not None and own <= vocab_size < len(names):
            warn_of_rowless(TOKENIZER_CONFIG, names[vocab_size:], vocab_size)
            return _shortened(metadata, vocab_size)
        return padded_vocabulary(metadata, vocab_size or max(self.size or 0, len(names)))

    def _list(self, name: str, default: Any) -> list[Any]:
        return _listed(self.stated, name, default)


def padded_vocabulary(metadata: Metadata, size: int) -> Metadata:
    """Return the metadata of a file with more tokens, all of them unused, as llama.cpp's converter adds them.

    Args:
        metadata: of the file; others than `tokenizer.*` are kept.
        size: the model's number of embeddings.

    Raises:
        ValueError: the model has fewer embeddings than there are tokens, or far more.
    """
    names = _listed(metadata, "tokens", "")
    missing = checked_size(len(names), size) - len(names)
    if not missing:
        return metadata
    types = _listed(metadata, "token_type", int(TokenType.NORMAL)) + [int(TokenType.UNUSED)] * missing
    return _extended(metadata, names + padding_tokens(len(names), size), types, [PADDING_SCORE] * missing)


def _listed(metadata: Mapping[str, Any], name: str, default: Any) -> list[Any]:
    stated: Any = metadata.get(PREFIX + name)
    return list(stated or [default] * len(metadata.get(PREFIX + "tokens") or ()))


def _extended(metadata: Metadata, tokens: list[str], types: list[int], more_scores: list[float]) -> Metadata:
    """Return the metadata with other tokens and types, and with more scores if there are some."""
    changed = metadata.copy()
    lists: dict[str, Any] = {"tokens": tokens, "token_type": types}
    if old := metadata.get(PREFIX + "scores"):
        lists["scores"] = [*old, *more_scores]  # type: ignore[misc]
    for name, values in lists.items():
        changed.set(PREFIX + name, values, TYPES[PREFIX + name])
    return changed


def _shortened(metadata: Metadata, size: int) -> Metadata:
    """Return the metadata without the tokens whose ids are `size` and above."""
    changed = metadata.copy()
    for name in ("tokens", "token_type", "scores"):
        if (values := metadata.get(PREFIX + name)) is not None:
            changed.set(PREFIX + name, values[:size], TYPES[PREFIX + name])  # type: ignore[index]
    for keys in ROLE_KEYS.values():
        for key in keys:
            if (stated := metadata.get(PREFIX + key)) is not None and stated >= size:  # type: ignore[operator]
                del changed[PREFIX + key]
    return changed


def _tokenizer_part(metadata: Mapping[str, Any], *more: str) -> Metadata:
    whole = metadata if isinstance(metadata, Metadata) else Metadata(metadata)
    part = Metadata()
    for key, value in whole.items():
        if key.startswith("tokenizer.") or key in more:
            part.set_unchecked(key, value, whole.types[key])
    return part
