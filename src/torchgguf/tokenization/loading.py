"""`load`: the tokenizer that a path or a repository names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import PurePosixPath
from typing import Any, TypeVar

from tokenizers import AddedToken

from torchgguf.hub import find_gguf, names_gguf_file
from torchgguf.tokenization.base import TokenizerBase
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.options import TokenizerOptions
from torchgguf.tokenization.sources.declared import class_name
from torchgguf.tokenization.sources.files import find_tokenizer_files
from torchgguf.tokenization.sources.gguf import MetadataSource
from torchgguf.tokenization.sources.opening import open_tokenizer_source
from torchgguf.tokenization.sources.source import TokenizerSource
from torchgguf.tokenization.vocab.values import PREFIX

AnyTokenizer = TypeVar("AnyTokenizer", bound=TokenizerBase)


def load(
    kind: type[AnyTokenizer],
    place: str | PathLike[str],
    gguf_file: str | PathLike[str] | None,
    options: Mapping[str, Any],
    tokenizer_class: str | None = None,
) -> AnyTokenizer:
    """Load a tokenizer, as `from_pretrained` does.

    Args:
        kind: the class of the tokenizer.
        place: a GGUF file, a folder, or the name of a repository.
        gguf_file: the name of the GGUF file in its folder or repository.
        options: those of `AutoTokenizer.from_pretrained`.
        tokenizer_class: the tokenizer's class in transformers, in place of what the files state.
    """
    loading = TokenizerOptions.of(options)
    if gguf_file is not None or names_gguf_file(place):
        tokenizer = _from_gguf(kind, place, gguf_file, loading)
    else:
        tokenizer = kind.from_source(_open_files(place, loading, tokenizer_class), **loading.settings)
    source = tokenizer.source
    if (
        loading.legacy is False
        and isinstance(source, MetadataSource)
        and source.stated[PREFIX + "model"] == "llama"
    ):
        warnings.warn(
            "legacy=False: a text after a special token begins with a space, as for llama.cpp", stacklevel=3
        )
    tokenizer.name_or_path = str(place)
    return tokenizer


def _from_gguf(
    kind: type[AnyTokenizer], place: str | PathLike[str], gguf_file: Any, loading: TokenizerOptions
) -> AnyTokenizer:
    if loading.tokenizer_type is not None:
        raise ValueError("tokenizer_type= is for Hugging Face's files: a GGUF file states what it holds")
    if loading.subfolder and gguf_file is None:
        raise ValueError("subfolder= needs gguf_file=, which is missing")
    name = str(PurePosixPath(loading.subfolder, gguf_file)) if loading.subfolder else gguf_file
    file = find_gguf(place, name, **loading.hub)
    return kind.from_gguf(
        file,
        pre=loading.pre,
        add_prefix_space=loading.add_prefix_space,
        **loading.special,
        **loading.settings,
    )


def _open_files(
    place: str | PathLike[str], loading: TokenizerOptions, tokenizer_class: str | None
) -> TokenizerSource:
    if isinstance(loading.pre, PreTokenizer):
        raise ValueError("pre= must be the name of a rule, as it is to be written into a GGUF file")
    files = find_tokenizer_files(place, loading.subfolder or "", **loading.hub)
    if loading.config is not None:
        files = replace(files, model={"model_type": loading.config.model_type, **files.model})
    if tokenizer_class is not None:
        files = replace(files, config={**files.config, "tokenizer_class": tokenizer_class})
    if (kind := loading.tokenizer_type) is not None:
        config = {**files.config, "tokenizer_class": None}
        files = replace(files, config=config, model={**files.model, "model_type": kind})
        if not class_name(files):
            raise ValueError(f"tokenizer_type={kind!r} is unknown: omit it where files state what they are")
    special: dict[str, Any] = {
        name.removesuffix("_token"): token.__getstate__() if isinstance(token, AddedToken) else token
        for name, token in loading.special.items()
    }
    return open_tokenizer_source(files, loading.pre, special, loading.add_prefix_space)
