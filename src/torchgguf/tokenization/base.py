"""`TokenizerBase`: the face of a tokenizer, with the interface of transformers, whatever it was read from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken

from torchgguf.container import GGUFFile, Metadata, open_gguf
from torchgguf.tokenization import saving
from torchgguf.tokenization.chat.templates import ChatTemplates
from torchgguf.tokenization.encoding.decoder import TokenDecoder
from torchgguf.tokenization.encoding.encoder import Encoder
from torchgguf.tokenization.encoding.forwarding import PartAttribute, part_method
from torchgguf.tokenization.encoding.roles import RoleId, RoleToken
from torchgguf.tokenization.encoding.surroundings import Surroundings
from torchgguf.tokenization.encoding.tokens import TokenTable
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.sources.chat_templates import NAMES_KEY, templates_metadata
from torchgguf.tokenization.sources.declared import ROLES, as_token
from torchgguf.tokenization.sources.gguf import MetadataSource
from torchgguf.tokenization.sources.source import TokenizerSource
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.values import PREFIX
from torchgguf.tokenization.vocab.vocabulary import Vocabulary

ROLE_NAMES = {f"{role}_token": role for role in ROLES}
LISTS = ("additional_special_tokens", "extra_special_tokens")


class _AddsToken:
    """`tokenizer.add_bos_token` and the like: whether each text gets that token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._role = name.removeprefix("add_").removesuffix("_token")

    def __get__(self, tokenizer: TokenizerBase, owner: type | None = None) -> bool:
        return tokenizer._surroundings.adds[self._role]

    def __set__(self, tokenizer: TokenizerBase, wanted: bool) -> None:
        tokenizer._surroundings.add(self._role, wanted)


class TokenizerBase:
    """All of a `Tokenizer` but the search for its files."""

    SPECIAL_TOKENS_ATTRIBUTES = tuple(f"{role}_token" for role in ROLES)
    is_fast = True
    verbose = False
    name_or_path = ""
    pad_token_type_id = 0

    bos_token_id, bos_token = RoleId(), RoleToken()
    eos_token_id, eos_token = RoleId(), RoleToken()
    unk_token_id, unk_token = RoleId(), RoleToken()
    sep_token_id, sep_token = RoleId(), RoleToken()
    pad_token_id, pad_token = RoleId(), RoleToken()
    cls_token_id, cls_token = RoleId(), RoleToken()
    mask_token_id, mask_token = RoleId(), RoleToken()
    eot_token_id, eot_token = RoleId(), RoleToken()
    eom_token_id, eom_token = RoleId(), RoleToken()
    fim_pre_token_id, fim_pre_token = RoleId(), RoleToken()
    fim_suf_token_id, fim_suf_token = RoleId(), RoleToken()
    fim_mid_token_id, fim_mid_token = RoleId(), RoleToken()
    fim_pad_token_id, fim_pad_token = RoleId(), RoleToken()
    fim_rep_token_id, fim_rep_token = RoleId(), RoleToken()
    fim_sep_token_id, fim_sep_token = RoleId(), RoleToken()

    source = PartAttribute[TokenizerSource]("_tokens")
    roles = PartAttribute[dict[str, int]]("_tokens")
    vocabulary = PartAttribute[Vocabulary]("_tokens")
    vocab = PartAttribute[dict[str, int]]("_tokens")
    vocab_size = PartAttribute[int]("_tokens")
    added_tokens_encoder = PartAttribute[dict[str, int]]("_tokens")
    added_tokens_decoder = PartAttribute[dict[int, AddedToken]]("_tokens")
    all_special_ids = PartAttribute[list[int]]("_tokens")
    all_special_tokens = PartAttribute[list[str]]("_tokens")
    extra_special_tokens = PartAttribute[list[str]]("_tokens")
    additional_special_tokens = PartAttribute[list[str]]("_tokens")
    special_tokens_map = PartAttribute[dict[str, str]]("_tokens")
    eog_token_ids = PartAttribute[list[int]]("_tokens")
    get_vocab = part_method("_tokens", TokenTable.get_vocab)
    get_added_vocab = part_method("_tokens", TokenTable.get_added_vocab)
    convert_tokens_to_ids = part_method("_tokens", TokenTable.convert_tokens_to_ids)
    convert_ids_to_tokens = part_method("_tokens", TokenTable.convert_ids_to_tokens)
    check_id = part_method("_tokens", TokenTable.check_id)
    __len__ = part_method("_tokens", TokenTable.__len__)

    add_bos_token, add_eos_token = _AddsToken(), _AddsToken()
    added_ends = PartAttribute[dict[str, bool] | None]("_surroundings")
    wrapping = part_method("_surroundings", Surroundings.wrapping)
    num_special_tokens_to_add = part_method("_surroundings", Surroundings.num_special_tokens_to_add)
    build_inputs_with_special_tokens = part_method(
        "_surroundings", Surroundings.build_inputs_with_special_tokens
    )
    create_token_type_ids_from_sequences = part_method(
        "_surroundings", Surroundings.create_token_type_ids_from_sequences
    )
    get_special_tokens_mask = part_method("_surroundings", Surroundings.get_special_tokens_mask)

    padding_side = PartAttribute[str]("_encoder")
    truncation_side = PartAttribute[str]("_encoder")
    model_max_length = PartAttribute[int]("_encoder")
    model_input_names = PartAttribute[Sequence[str]]("_encoder")
    split_special_tokens = PartAttribute[bool]("_encoder")
    max_len_single_sentence = PartAttribute[int]("_encoder")
    max_len_sentences_pair = PartAttribute[int]("_encoder")
    __call__ = part_method("_encoder", Encoder.__call__)
    pad = part_method("_encoder", Encoder.pad)
    encode = part_method("_encoder", Encoder.encode)
    encode_plus = part_method("_encoder", Encoder.encode_plus)
    batch_encode_plus = part_method("_encoder", Encoder.batch_encode_plus)
    tokenize = part_method("_encoder", Encoder.tokenize)

    errors = PartAttribute[str]("_decoder")
    clean_up_tokenization_spaces = PartAttribute[bool]("_decoder")
    add_space_prefix = PartAttribute[bool]("_decoder")
    decode = part_method("_decoder", TokenDecoder.decode)
    batch_decode = part_method("_decoder", TokenDecoder.batch_decode)
    clean_up_tokenization = staticmethod(TokenDecoder.clean_up_tokenization)
    convert_tokens_to_string = part_method("_decoder", TokenDecoder.convert_tokens_to_string)
    spell = part_method("_decoder", TokenDecoder.spell)

    chat_template = PartAttribute[str | Mapping[str, str] | None]("_chat")
    chat_templates = PartAttribute[dict[str, str]]("_chat")
    chat_control_tokens = PartAttribute[Sequence[str] | None]("_chat")
    get_chat_template = part_method("_chat", ChatTemplates.get_chat_template)
    apply_chat_template = part_method("_chat", ChatTemplates.apply_chat_template)
    control_tokens = part_method("_chat", ChatTemplates.control_tokens)

    def __init__(
        self,
        source: TokenizerSource,
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
        """Load a tokenizer. The arguments replace the attributes of the same names that the source states.

        Raises:
            TokenizerError: the source describes no tokenizer, or one that is unsupported.
            ValueError: a side is invalid.
        """
        defaults = source.defaults
        self._tokens = TokenTable(source)
        self._surroundings = Surroundings(self._tokens)
        self._encoder = Encoder(
            self._tokens,
            self._surroundings,
            padding_side=padding_side or defaults.padding_side,
            truncation_side=truncation_side or defaults.truncation_side,
            model_max_length=_first(model_max_length, defaults.model_max_length),
            model_input_names=model_input_names or defaults.model_input_names,
            split_special_tokens=_first(split_special_tokens, defaults.split_special_tokens),
        )
        clean_up = _first(clean_up_tokenization_spaces, defaults.clean_up_tokenization_spaces)
        self._decoder = TokenDecoder(self._tokens, errors=errors, clean_up_tokenization_spaces=clean_up)
        control_tokens = _first(chat_control_tokens, source.config.get("chat_control_tokens"))
        self._chat = ChatTemplates(self._encoder, defaults.chat_templates, control_tokens)
        self._stated = self._settings()
        self.deprecation_warnings: dict[str, bool] = {}  # which transformers' tools set

        if add_bos_token is not None:
            self.add_bos_token = add_bos_token
        if add_eos_token is not None:
            self.add_eos_token = add_eos_token
        if chat_template is not None:
            self.chat_template = chat_template
        self.wrapping()  # checks that all tokens it needs are there

    @classmethod
    def from_gguf(
        cls,
        source: str | PathLike[str] | GGUFFile | Mapping[str, Any],
        *,
        pre: str | PreTokenizer | None = None,
        add_prefix_space: bool | None = None,
        **options: Any,
    ) -> Self:
        """Load the tokenizer of a GGUF file.

        Args:
            source: the file's path, the opened file, or its metadata.
            pre: the name of a splitting rule, or a `PreTokenizer`, that replaces the file's.
            add_prefix_space: whether to add a space before each text, by default as the file states.
            options: those of the class, and `bos_token`, `pad_token` and the like, which replace the file's
                special tokens.

        Raises:
            TokenizerError: the file holds no tokenizer, or one that is unsupported.
        """
        if not isinstance(source, Mapping | GGUFFile):
            with open_gguf(source) as file:
                return cls.from_gguf(file, pre=pre, add_prefix_space=add_prefix_space, **options)
        metadata = source.metadata if isinstance(source, GGUFFile) else source
        place = str(source.paths[0]) if isinstance(source, GGUFFile) else ""
        if add_prefix_space is None:
            return cls.from_source(MetadataSource.of(metadata, pre, place), **options)
        metadata = metadata.copy() if isinstance(metadata, Metadata) else Metadata(metadata)
        metadata[f"{PREFIX}add_space_prefix"] = add_prefix_space
        tokenizer = cls.from_source(MetadataSource.of(metadata, pre, place), **options)
        if tokenizer.add_space_prefix != add_prefix_space:
            kind = metadata[f"{PREFIX}model"]
            raise TokenizerError(f"tokenizers of the kind {kind!r} do not support {add_prefix_space=}")
        return tokenizer

    @classmethod
    def from_source(cls, source: TokenizerSource, **options: Any) -> Self:
        """Load the tokenizer that a source describes.

        Args:
            source: the source.
            options: those of `from_gguf`, except `pre` and `add_prefix_space`.

        Raises:
            TokenizerError: the source describes no tokenizer, or one that is unsupported.
        """
        special = {name: options.pop(name) for name in list(options) if name in (*ROLE_NAMES, *LISTS)}
        tokenizer = cls.__new__(cls)
        TokenizerBase.__init__(tokenizer, source, **options)
        for note in (*source.defaults.notes, *tokenizer.vocabulary.notes):
            warnings.warn(f"{source.place}: {note}" if source.place else note, stacklevel=3)
        for name in [name for name, token in special.items() if token is None]:
            special.pop(name)
            if name in ROLE_NAMES:
                setattr(tokenizer, name, None)
        tokenizer.add_special_tokens(special)
        return tokenizer

    def to_gguf(self, vocab_size: int | None = None) -> Metadata:
        """Return the metadata `tokenizer.*` of a GGUF file.

        A tokenizer of a GGUF file keeps each value and type, except what was set since it was loaded. A
        tokenizer of other files gets what llama.cpp's converter writes.

        Args:
            vocab_size: the model's number of embeddings; names are made up where there are fewer tokens.

        Raises:
            TokenizerError: GGUF does not support what the tokenizer does.
            ValueError: the model has fewer embeddings than there are tokens, or far more.
        """
        model = replace(self._tokens.model, wrapping=self._surroundings.fixed)
        metadata = self.source.metadata(model, vocab_size)
        settings = self._settings()
        for key in self._stated | settings:
            value = settings.get(key)
            if value == self._stated.get(key):
                continue
            if value is None:
                metadata.pop(key, None)
            else:
                metadata[key] = value
        return metadata

    def _settings(self) -> dict[str, Any]:
        """Return the metadata of what can be set; None for what is not."""
        return {
            **{PREFIX + keys[0]: self.roles.get(role) for role, keys in ROLE_KEYS.items()},
            **{f"{PREFIX}add_{role}_token": adds for role, adds in self._surroundings.adds.items()},
            NAMES_KEY: None,
            **templates_metadata(self.chat_templates),
        }

    def file_contents(self, filename_prefix: str | None = None) -> dict[str, str]:
        """Return the contents of the files that `save_pretrained` writes, by the files' names.

        Args:
            filename_prefix: what the names begin with, before a hyphen.

        Raises:
            ValueError: the name of a chat template is invalid as the name of a file.
        """
        return saving.file_contents(self._encoder, self._decoder, self._chat, filename_prefix)

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        filename_prefix: str | None = None,
        legacy_format: bool | None = None,
        push_to_hub: bool = False,
    ) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json and chat templates, as transformers and vLLM read them.

        Args:
            save_directory: where to write; created if it is missing.
            filename_prefix: what the files' names begin with, before a hyphen.
            legacy_format: True, for the older files, is unsupported.
            push_to_hub: True is unsupported.

        Returns:
            The files' paths.

        Raises:
            ValueError: an option is unsupported, or the name of a chat template is invalid as the name of a
                file.
        """
        if legacy_format or push_to_hub:
            raise ValueError("legacy_format=True and push_to_hub=True are not supported")
        return saving.write_files(self.file_contents(filename_prefix), Path(save_directory))

    def save_vocabulary(
        self, save_directory: str | PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write vocab.json and merges.txt of a byte-level BPE.

        Args:
            save_directory: where to write; created if it is missing.
            filename_prefix: what the files' names begin with, before a hyphen.

        Returns:
            The files' paths.

        Raises:
            ValueError: the tokenizer is of another kind, whose vocabulary has no such files.
        """
        return saving.write_vocabulary(self._tokens.model, Path(save_directory), filename_prefix)

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Search texts for these tokens; those that the vocabulary lacks are appended to it.

        Args:
            new_tokens: the tokens.
            special_tokens: make them special, so that `skip_special_tokens` omits them.

        Returns:
            How many were appended: the model then needs `resize_token_embeddings(len(tokenizer))`.

        Raises:
            TokenizerError: a token is invalid, or an option of it is unsupported for this source.
        """
        several = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        tokens = [as_token(t, special_tokens) if isinstance(t, str) else t for t in several]
        if special_tokens:
            for token in tokens:
                token.special = True
        return self._tokens.add(tokens) if tokens else 0

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Assign roles to tokens, and append those that the vocabulary lacks.

        Args:
            special_tokens_dict: the tokens by role, as in `{"pad_token": "<pad>"}`. The key
                "extra_special_tokens", or "additional_special_tokens", lists more of them.
            replace_extra_special_tokens: ignored: what is special stays so.

        Returns:
            How many were appended.

        Raises:
            ValueError: a key is unknown.
            TokenizerError: as `add_tokens` raises it.
        """
        if unknown := special_tokens_dict.keys() - ROLE_NAMES.keys() - set(LISTS):
            raise ValueError(
                f"{min(unknown)!r} is not a role of a token; known are {', '.join((*ROLE_NAMES, *LISTS))}"
            )
        named = {ROLE_NAMES[key]: value for key, value in special_tokens_dict.items() if key in ROLE_NAMES}
        lists = (special_tokens_dict.get(key) or () for key in LISTS)
        listed = [
            t for several in lists for t in (several.values() if isinstance(several, Mapping) else several)
        ]
        count = self.add_tokens([*named.values(), *listed], special_tokens=True)
        for role, token in named.items():
            self.roles[role] = self.vocabulary.ids[str(getattr(token, "content", token))]
        return count

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # else both would share their parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, bos={self.bos_token!r}, eos={self.eos_token!r})"


def _first(stated: Any, default: Any) -> Any:
    return default if stated is None else stated


# The options of a tokenizer that are set when it is loaded.
SETTINGS = (*(TokenizerBase.__init__.__kwdefaults__ or ()), *LISTS)
