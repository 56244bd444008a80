"""Finding the tokenizer that a path or a repository names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tokenizers import AddedToken

from torchgguf.hub import find_gguf
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.options import LoadOptions
from torchgguf.tokenization.sources.declared import class_name
from torchgguf.tokenization.sources.files import find_tokenizer_files
from torchgguf.tokenization.sources.gguf import GGUFSource
from torchgguf.tokenization.sources.older_files import open_source
from torchgguf.tokenization.sources.source import Source
from torchgguf.tokenization.tokenizer import SETTINGS, Tokenizer
from torchgguf.tokenization.vocab.vocabulary import PREFIX

AnyTokenizer = TypeVar("AnyTokenizer", bound=Tokenizer)


class AutoTokenizer:
    """Makes the tokenizer that belongs to a model: `AutoTokenizer.from_pretrained(...)`."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not made itself: call AutoTokenizer.from_pretrained(...)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | PathLike[str] | None = None,
        **options: Any,
    ) -> Tokenizer:
        """The tokenizer of a GGUF file, or that of a folder or repository with Hugging Face's files.

        The GGUF file is named by its path, or as `gguf_file` in its folder or repository. `options` are those
        of `Tokenizer` and `HubOptions`; special tokens such as `pad_token="<pad>"`, None for none, and lists
        of them as `extra_special_tokens`; and

        - `subfolder`: where in the folder or repository the files are;
        - `pre`: for a GGUF file the splitting rule that replaces its own; else the rule's name to be written
          into one, where it cannot be found by trying;
        - `add_prefix_space`: whether texts get a leading space;
        - `tokenizer_type`: a model type such as "gpt2", whose tokenizer it is, and `config`: the model's,
          which says it where no file does. Neither is for GGUF files, which say it themselves.

        Other options of transformers are taken where they ask for nothing special. No code of a repository
        is ever run, and there is one kind of tokenizer, so `trust_remote_code` and `use_fast` change nothing.

        Raises:
            FileNotFoundError: there is no such file, or no tokenizer in the folder.
            TokenizerError: it is incomplete, contradicts itself, or is not supported.
            TypeError, ValueError: there is no such option, or it asks for what is not done.
            PermissionError, ConnectionError: as `torchgguf.hub.find_file` raises them.
        """
        return load(Tokenizer, pretrained_model_name_or_path, gguf_file, options)


def load(
    kind: type[AnyTokenizer],
    place: str | PathLike[str],
    gguf_file: str | PathLike[str] | None,
    options: Mapping[str, Any],
    tokenizer_class: str | None = None,
) -> AnyTokenizer:
    """What `from_pretrained` does. `tokenizer_class` replaces that of the files."""
    told = LoadOptions.of(options, SETTINGS)
    if gguf_file is not None or Path(place).suffix == ".gguf":
        tokenizer = _from_gguf(kind, place, gguf_file, told)
    else:
        tokenizer = kind.from_source(_open_files(place, told, tokenizer_class), **told.settings)
    source = tokenizer._source
    if told.legacy is False and isinstance(source, GGUFSource) and source.stated[PREFIX + "model"] == "llama":
        warnings.warn(
            "legacy=False: a text after a special token begins with a space, as for llama.cpp", stacklevel=3
        )
    tokenizer.name_or_path = str(place)
    return tokenizer


def _from_gguf(
    kind: type[AnyTokenizer], place: str | PathLike[str], gguf_file: Any, told: LoadOptions
) -> AnyTokenizer:
    if told.tokenizer_type is not None:
        raise ValueError("tokenizer_type= is for Hugging Face's files: a GGUF file says itself what it holds")
    if told.subfolder and gguf_file is None:
        raise ValueError("subfolder= is where gguf_file= is, which is missing")
    name = str(PurePosixPath(told.subfolder, gguf_file)) if told.subfolder else gguf_file
    file = find_gguf(place, name, **told.hub)
    return kind.from_gguf(
        file, pre=told.pre, add_prefix_space=told.add_prefix_space, **told.special, **told.settings
    )


def _open_files(place: str | PathLike[str], told: LoadOptions, tokenizer_class: str | None) -> Source:
    if isinstance(told.pre, PreTokenizer):
        raise ValueError("pre= is the name of a rule, where it is to be written into a GGUF file")
    files = find_tokenizer_files(place, told.subfolder or "", **told.hub)
    if told.config is not None:
        files = replace(files, model={"model_type": told.config.model_type, **files.model})
    if tokenizer_class is not None:
        files = replace(files, config={**files.config, "tokenizer_class": tokenizer_class})
    if (kind := told.tokenizer_type) is not None:
        config = {**files.config, "tokenizer_class": None}
        files = replace(files, config=config, model={**files.model, "model_type": kind})
        if not class_name(files):
            raise ValueError(
                f"tokenizer_type={kind!r} is not known: leave it out where files say what they are"
            )
    special: dict[str, Any] = {
        name.removesuffix("_token"): token.__getstate__() if isinstance(token, AddedToken) else token
        for name, token in told.special.items()
    }
    return open_source(files, told.pre, special, told.add_prefix_space)
