"""The tokenizer of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch

from torchgguf.container import GGUFFile, Metadata, open_gguf
from torchgguf.tokenization.batch import check_side
from torchgguf.tokenization.chat import ChatTokenizer
from torchgguf.tokenization.encoder import UNLIMITED
from torchgguf.tokenization.lookup import TokenIds, flat
from torchgguf.tokenization.models import read_model
from torchgguf.tokenization.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.special_tokens import ROLE_KEYS
from torchgguf.tokenization.streaming import StreamDecoder
from torchgguf.tokenization.vocabulary import PREFIX

# What transformers' clean-up writes for what, in its order.
_CLEAN_UP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


class Tokenizer(ChatTokenizer):
    """A tokenizer as a GGUF file's metadata describes it, with the interface of transformers' tokenizers.

    `metadata`: that of the file. `pre`: the name of a splitting rule, or a `PreTokenizer`, to replace the
    file's. `add_bos_token`, `add_eos_token`, `chat_template` likewise replace what the file says.
    `model_max_length` is the model's context length unless it is given. TokenizerError if the metadata
    describes no tokenizer, or one that is not supported.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        *,
        pre: str | PreTokenizer | None = None,
        add_bos_token: bool | None = None,
        add_eos_token: bool | None = None,
        chat_template: str | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        model_max_length: int | None = None,
    ) -> None:
        length_key = f"{metadata.get('general.architecture')}.context_length"
        self._metadata = _tokenizer_part(metadata, "general.name", "general.architecture", length_key)
        self._pre: str | PreTokenizer | None = None
        self._model = read_model(self._metadata, pre)
        self._pieces: dict[int, bytes] = {}
        self.roles = dict(self.vocabulary.roles)
        self.add_bos_token = self._model.add_bos
        self.add_eos_token = self._model.add_eos
        self.padding_side = check_side(padding_side)
        self.truncation_side = check_side(truncation_side)
        context_length = self._metadata.get(length_key)
        known = context_length if isinstance(context_length, int) else UNLIMITED
        self.model_max_length = known if model_max_length is None else model_max_length
        self._read_templates(self._metadata)
        self._as_stated = self._settings()
        self._pre = pre
        if add_bos_token is not None:
            self.add_bos_token = add_bos_token
        if add_eos_token is not None:
            self.add_eos_token = add_eos_token
        if chat_template is not None:
            self.chat_template = chat_template
        self._added_around()

    @classmethod
    def from_gguf(
        cls, source: str | PathLike[str] | GGUFFile | Mapping[str, Any], **options: Any
    ) -> Tokenizer:
        """The tokenizer of a GGUF file, opened or named by its path, or of its metadata.

        `options` are those of the class.
        """
        if isinstance(source, GGUFFile):
            return cls(source.metadata, **options)
        if isinstance(source, Mapping):
            return cls(source, **options)
        with open_gguf(source) as file:
            return cls(file.metadata, **options)

    def to_gguf(self) -> Metadata:
        """The metadata's part `tokenizer.*`: each value and type as it came, but for what was set since."""
        metadata = _tokenizer_part(self._metadata)
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
            PREFIX + "pre": self._pre if isinstance(self._pre, str) else self._metadata.get(PREFIX + "pre"),
            **{PREFIX + keys[0]: self.roles.get(role) for role, keys in ROLE_KEYS.items()},
            PREFIX + "add_bos_token": self.add_bos_token,
            PREFIX + "add_eos_token": self.add_eos_token,
            **self._template_settings(),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_model", "_pieces")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _pieces={})
        self._model = read_model(self._metadata, self._pre)

    def __repr__(self) -> str:
        kind, name = self._metadata[PREFIX + "model"], type(self).__name__
        return f"{name}({kind!r}, {len(self)} tokens, bos={self.bos_token!r}, eos={self.eos_token!r})"

    def decode(
        self,
        token_ids: TokenIds,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """The text of tokens. Bytes that make no character become U+FFFD.

        `clean_up_tokenization_spaces`: remove the space before punctuation and contractions, whether or not
        the text had one.
        """
        decoder = StreamDecoder(self, skip_special_tokens)
        text = decoder.push(token_ids) + decoder.flush()
        if clean_up_tokenization_spaces:
            for old, new in _CLEAN_UP:
                text = text.replace(old, new)
        return text

    def batch_decode(self, sequences: Sequence[TokenIds] | torch.Tensor, **options: Any) -> list[str]:
        """The text of each sequence; `options` are those of `decode`."""
        return [self.decode(sequence, **options) for sequence in sequences]

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
                piece = token.encode()
            else:
                piece = vocabulary.bytes_.get(token_id) or self._model.spell(token)
            self._pieces[token_id] = piece
        return piece

    @property
    def add_space_prefix(self) -> bool:
        """Whether each text is given a leading space, which decoding takes away."""
        return bool(self._model.add_space_prefix)


def _tokenizer_part(metadata: Mapping[str, Any], *more: str) -> Metadata:
    whole = metadata if isinstance(metadata, Metadata) else Metadata(metadata)
    part = Metadata()
    for key, value in whole.items():
        if key.startswith("tokenizer.") or key in more:
            part.set_unchecked(key, value, whole.types[key])
    return part
