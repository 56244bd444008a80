"""Finding the tokenizer that a path or a repository names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

from torchgguf.hub import HubOptions, find_gguf
from torchgguf.tokenization.declared import ROLES
from torchgguf.tokenization.files import find_tokenizer_files
from torchgguf.tokenization.pipelines import open_source
from torchgguf.tokenization.tokenizer import Tokenizer

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
        of `Tokenizer` and `HubOptions`, special tokens such as `pad_token="<pad>"`, and

        - `pre`: for a GGUF file the splitting rule that replaces its own; else the rule's name to be written
          into one, where it cannot be found by trying;
        - `add_prefix_space` (not for GGUF files): whether texts get a leading space.

        Raises:
            FileNotFoundError: there is no such file, or no tokenizer in the folder.
            TokenizerError: it is incomplete, contradicts itself, or is not supported.
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
    hub_names = HubOptions.__annotations__.keys()
    hub = cast(HubOptions, {name: options[name] for name in options.keys() & hub_names})
    settings = {name: options[name] for name in options.keys() - hub_names}
    if gguf_file is not None or Path(place).suffix == ".gguf":
        return kind.from_gguf(find_gguf(place, gguf_file, **hub), **settings)
    files = find_tokenizer_files(place, **hub)
    if tokenizer_class is not None:
        files = replace(files, config={**files.config, "tokenizer_class": tokenizer_class})
    special = {role: settings.pop(name) for role in ROLES if (name := f"{role}_token") in settings}
    source = open_source(files, settings.pop("pre", None), special, settings.pop("add_prefix_space", None))
    return kind.from_source(source, **settings)
