"""Decide whether a path names a GGUF file."""

from os import PathLike
from pathlib import Path

from torchgguf.container.layout import MAGIC, UNFINISHED_MAGIC
from torchgguf.container.system import checked_path


def has_gguf_magic(path: str | PathLike[str]) -> bool:
    """Return whether a file begins as GGUF does, also while its metadata are edited.

    Raises:
        OSError: the file is missing or not readable.
    """
    with checked_path(path).open("rb") as file:
        return file.read(len(UNFINISHED_MAGIC)).startswith((MAGIC, UNFINISHED_MAGIC))


def is_gguf_file(place: str | PathLike[str]) -> bool:
    """Return whether a path names a GGUF file. The first bytes of a file decide; a folder never is one.

    Whatever else is called `.gguf` counts too, even if it is missing: opening it raises the error that
    explains what is wrong with it.

    Args:
        place: a path, or the name of a repository.

    Raises:
        OSError: the file is not readable.
    """
    path = Path(place)
    if path.is_dir():
        return False
    return path.suffix == ".gguf" or (path.is_file() and has_gguf_magic(path))
