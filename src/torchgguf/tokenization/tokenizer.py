"""The tokenizer that users meet, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import AddedToken, models

from torchgguf.container import GGUFFile, Metadata, open_gguf
from torchgguf.tokenization.chat.templates import ChatTokenizer, templates_metadata
from torchgguf.tokenization.encoding.batch import check_side
from torchgguf.tokenization.encoding.lookup import TokenIds, flat, is_batch
from torchgguf.tokenization.encoding.streaming import StreamDecoder
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.saving import save_pretrained, save_vocabulary
from torchgguf.tokenization.sources.declared import ROLES, as_token
from torchgguf.tokenization.sources.gguf import GGUFSource
from torchgguf.tokenization.sources.source import Source
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.vocabulary import PREFIX

# What transformers' clean-up writes for what, in its order.
_CLEAN_UP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)
_ROLES = {f"{role}_token": role for role in ROLES}
_LISTS = ("additional_special_tokens", "extra_special_tokens")


class Tokenizer(ChatTokenizer):
    """A tokenizer with the interface of transformers' tokenizers; see `from_gguf` and `AutoTokenizer`.

    The arguments replace what its source says, each what it is called, and `errors`: what is made of bytes
    that are no character, as in `bytes.decode`. `name_or_path`: what `from_pretrained` was given.
    TokenizerError if the source describes no tokenizer, or one that is not supported.
    """

    is_fast = True
    name_or_path = ""

    def __init__(
        self,
        source: Source,
        *,
        add_bos_token: bool | None = None,
        add_eos_token: bool | None = None,
        chat_template: str | Mapping[str, str] | None = None,
        chat_control_tokens: Sequence[str] | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        model_max_length: int | None = None,
        model_input_names: Sequence[str] | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        split_special_tokens: bool | None = None,
        errors: str = "replace",
    ) -> None:
        self._source = source
        self._read()
        defaults = source.defaults
        self.roles = dict(self.vocabulary.roles)
        self._adds = {"bos": self._model.add_bos, "eos": self._model.add_eos}
        self._wrapping = self._model.wrapping
        self.chat_templates = dict(defaults.chat_templates)
        self._template_keys = list(templates_metadata(self.chat_templates))
        self._as_stated = self._settings()

        self.padding_side = check_side(padding_side or defaults.padding_side)
        self.truncation_side = check_side(truncation_side or defaults.truncation_side)
        self.model_max_length = _first(model_max_length, defaults.model_max_length)
        self.model_input_names = tuple(model_input_names or defaults.model_input_names)
        self.split_special_tokens = _first(split_special_tokens, defaults.split_special_tokens)
        self.clean_up_tokenization_spaces = _first(
            clean_up_tokenization_spaces, defaults.clean_up_tokenization_spaces
        )
        self.errors = errors
        if add_bos_token is not None:
            self.add_bos_token = add_bos_token
        if add_eos_token is not None:
            self.add_eos_token = add_eos_token
        if chat_template is not None:
            self.chat_template = chat_template
        self.chat_control_tokens = _first(chat_control_tokens, source.config.get("chat_control_tokens"))
        self.wrapping()

    @classmethod
    def from_gguf(
        cls,
        source: str | PathLike[str] | GGUFFile | Mapping[str, Any],
        *,
        pre: str | PreTokenizer | None = None,
        add_prefix_space: bool | None = None,
        **options: Any,
    ) -> Self:
        """The tokenizer of a GGUF file, opened or named by its path, or of its metadata.

        `pre`: the name of a splitting rule, or a `PreTokenizer`, to replace the file's. `add_prefix_space`:
        whether texts get a leading space, if not as the file says. `options` are those of the class, and
        `bos_token`, `pad_token` and the like to replace the file's special tokens.
        """
        if not isinstance(source, Mapping | GGUFFile):
            with open_gguf(source) as file:
                return cls.from_gguf(file.metadata, pre=pre, add_prefix_space=add_prefix_space, **options)
        metadata = source.metadata if isinstance(source, GGUFFile) else source
        if add_prefix_space is None:
            return cls.from_source(GGUFSource.of(metadata, pre), **options)
        metadata = metadata.copy() if isinstance(metadata, Metadata) else Metadata(metadata)
        metadata[f"{PREFIX}add_space_prefix"] = add_prefix_space
        tokenizer = cls.from_source(GGUFSource.of(metadata, pre), **options)
        if tokenizer.add_space_prefix != add_prefix_space:
            kind = metadata[f"{PREFIX}model"]
            raise TokenizerError(f"tokenizers of the kind {kind!r} have no place for {add_prefix_space=}")
        return tokenizer

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> Self:
        """The tokenizer that a source describes. `options` are those of `from_gguf`."""
        special = {name: options.pop(name) for name in list(options) if name in (*_ROLES, *_LISTS)}
        tokenizer = cls.__new__(cls)
        Tokenizer.__init__(tokenizer, source, **options)
        for name in [name for name, token in special.items() if token is None]:
            special.pop(name)
            if name in _ROLES:
                setattr(tokenizer, name, None)
        tokenizer.add_special_tokens(special)
        return tokenizer

    def _read(self) -> None:
        self._model = self._source.read()
        self._pieces: dict[int, bytes] = {}

    def to_gguf(self, vocab_size: int | None = None) -> Metadata:
        """The metadata `tokenizer.*` of a GGUF file.

        Of a tokenizer from such a file, each value and type as it came, but for what was set since; of one
        from other files, what llama.cpp's converter writes. `vocab_size`: the model's number of embeddings;
        where there are fewer tokens, names are made up. TokenizerError if GGUF cannot say what the tokenizer
        does, ValueError if the model has too few embeddings.
        """
        metadata = self._source.metadata(replace(self._model, wrapping=self._wrapping), vocab_size)
        for key, value in self._settings().items():
            if value == self._as_stated.get(key):
                continue
            if value is None:
                metadata.pop(key, None)
            else:
                metadata[key] = value
        return metadata

    def _settings(self) -> dict[str, Any]:
        """What can be set, by its metadata key."""
        return {
            **{PREFIX + keys[0]: self.roles.get(role) for role, keys in ROLE_KEYS.items()},
            **{f"{PREFIX}add_{role}_token": adds for role, adds in self._adds.items()},
            **self._template_settings(),
        }

    def save_pretrained(
        self, save_directory: str | PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json and chat templates, as transformers and vLLM read them.

        Returns the files' paths. The directory is made if it is not there.
        """
        return save_pretrained(self, Path(save_directory), filename_prefix)

    def save_vocabulary(
        self, save_directory: str | PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write a byte-level BPE's vocab.json and merges.txt, and return their paths.

        ValueError for other kinds, whose vocabulary has no such files.
        """
        return save_vocabulary(self, Path(save_directory), filename_prefix)

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Have texts searched for these tokens; those that the vocabulary lacks are added at its end.

        `special_tokens`: `skip_special_tokens` leaves them out. Returns how many were lacking: the model then
        needs `resize_token_embeddings(len(tokenizer))`. TokenizerError if one cannot be matched as it asks.
        """
        several = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        tokens = [as_token(t, special_tokens) if isinstance(t, str) else t for t in several]
        if special_tokens:
            for token in tokens:
                token.special = True
        if not tokens:
            return 0
        before = len(self)
        self._source = self._source.with_tokens(tokens)
        self._read()
        return len(self) - before

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Give roles to tokens, as in `{"pad_token": "<pad>"}`, and add those that are lacking.

        The key "extra_special_tokens", or "additional_special_tokens", lists more of them. Returns how many
        were lacking. ValueError for another key.
        """
        if unknown := special_tokens_dict.keys() - _ROLES.keys() - set(_LISTS):
            raise ValueError(
                f"{min(unknown)!r} is no role of a token; known are {', '.join((*_ROLES, *_LISTS))}"
            )
        named = {_ROLES[key]: value for key, value in special_tokens_dict.items() if key in _ROLES}
        lists = (special_tokens_dict.get(key) or () for key in _LISTS)
        listed = [
            t for several in lists for t in (several.values() if isinstance(several, Mapping) else several)
        ]
        count = self.add_tokens([*named.values(), *listed], special_tokens=True)
        for role, token in named.items():
            self.roles[role] = self.vocabulary.ids[str(getattr(token, "content", token))]
        return count

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_model", "_pieces")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, bos={self.bos_token!r}, eos={self.eos_token!r})"

    def decode(
        self,
        token_ids: TokenIds | Sequence[TokenIds] | Mapping[str, Any],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of tokens; of a batch of them the list of texts, and of an encoding that of its ids.

        Bytes that make no character become U+FFFD, unless `errors` says otherwise.
        `clean_up_tokenization_spaces`: remove the space before punctuation and contractions, whether or not
        the text had one. What a tokenizer's files say of it is not heeded for BPE, as by transformers: it
        spoils texts.
        """
        ids: Any = token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids
        if is_batch(ids):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        decoder = StreamDecoder(self, skip_special_tokens)
        text = decoder.push(ids) + decoder.flush()
        if clean_up_tokenization_spaces is None:
            is_bpe = isinstance(self._model.backend.model, models.BPE)
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces and not is_bpe
        if clean_up_tokenization_spaces:
            for old, new in _CLEAN_UP:
                text = text.replace(old, new)
        return text

    def batch_decode(self, sequences: Sequence[TokenIds] | torch.Tensor, **options: Any) -> list[str]:
        """The text of each sequence; `options` are those of `decode`. One sequence alone makes one text."""
        texts = self.decode(sequences, **options) if len(sequences) else []
        return [texts] if isinstance(texts, str) else list(texts)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens as they are written in the vocabulary, whether or not they are in it."""
        return str(self._model.backend.decoder.decode(list(tokens)))

    def spell(self, token_ids: TokenIds, skip_special_tokens: bool = False) -> bytes:
        """The bytes that tokens stand for, one after the other."""
        hidden = self.vocabulary.hidden if skip_special_tokens else ()
        return b"".join([self._piece(i) for i in flat(token_ids) if i not in hidden])

    def _piece(self, token_id: int) -> bytes:
        piece = self._pieces.get(token_id)
        if piece is None:
            vocabulary = self.vocabulary
            token = vocabulary.tokens[self.check_id(token_id)]
            if token_id in vocabulary.special:
                piece = self._model.spell_special(token)
            else:
                piece = vocabulary.bytes_.get(token_id) or self._model.spell(token)
            self._pieces[token_id] = piece
        return piece

    @property
    def add_space_prefix(self) -> bool:
        """Whether each text is given a leading space, which decoding takes away."""
        return bool(self._model.add_space_prefix)


def _first(told: Any, default: Any) -> Any:
    return default if told is None else told


# What a tokenizer can be told where it is made.
SETTINGS = (*(Tokenizer.__init__.__kwdefaults__ or ()), *_LISTS)
