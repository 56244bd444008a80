"""Finding the tokenizer that a path or a repository names."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from torchgguf.hub import find_gguf
from torchgguf.tokenization.tokenizer import Tokenizer


class AutoTokenizer:
    """Makes the tokenizer that belongs to a model: `AutoTokenizer.from_pretrained(...)`."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not made itself: call AutoTokenizer.from_pretrained(...)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Tokenizer:
        """The tokenizer of a GGUF file: its path, or its name and its folder's or repository's.

        `options` are those of `Tokenizer`: `pre`, `add_bos_token`, `padding_side`, ... The others concern
        what is fetched from a repository. FileNotFoundError if there is no such file, TokenizerError if there
        is no tokenizer in it.
        """
        file = find_gguf(
            pretrained_model_name_or_path,
            gguf_file,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return Tokenizer.from_gguf(file, **options)
