"""Finding the tokenizer that a path or a repository names."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.tokenizer import Tokenizer


class AutoTokenizer:
    """Makes the tokenizer that belongs to a model: `AutoTokenizer.from_pretrained(...)`."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not made itself: call AutoTokenizer.from_pretrained(...)")

    @staticmethod
    def from_pretrained(
        path: str | PathLike[str],
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
        what is fetched from a repository. TokenizerError if there is no such file or no tokenizer in it.
        """
        local = Path(path)
        if gguf_file is not None and not local.exists():
            from huggingface_hub import hf_hub_download

            file = hf_hub_download(
                str(path),
                str(gguf_file),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
            return Tokenizer.from_gguf(file, **options)
        return Tokenizer.from_gguf(_local_file(local, gguf_file), **options)


def _local_file(path: Path, gguf_file: str | PathLike[str] | None) -> Path:
    file = path / gguf_file if gguf_file is not None else path
    if file.is_file():
        return file
    if file.is_dir():
        names = ", ".join(sorted(found.name for found in file.glob("*.gguf"))) or "none"
        raise TokenizerError(f"{file} is a folder: pass gguf_file= to name a file in it (it has {names})")
    raise TokenizerError(f"there is no file {file}")
