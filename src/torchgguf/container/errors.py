"""The errors and warnings for GGUF files."""

from itertools import islice
from os import PathLike


class GGUFError(Exception):
    """A GGUF file, or the data for a new one, is invalid. The message is one line: file, reason, position.

    Errors of the operating system (a missing file, no permission) stay an `OSError`. A full disk is a
    `GGUFError`.

    Args:
        reason: what is invalid.
        path: the file, if there is one.
        offset: the position in the file, in bytes.
    """

    def __init__(
        self, reason: str, *, path: str | PathLike[str] | None = None, offset: int | None = None
    ) -> None:
        name = "" if path is None else f"{path}: "
        place = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{name}{reason}{place}")


def brief(value: object) -> str:
    """Return the repr of a value, cut to 60 characters for use in messages."""
    text = repr(_beginning(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _beginning(value: object) -> object:
    """Return the part of a value that `brief` shows: a file may contain millions of elements."""
    if isinstance(value, str | bytes):
        return value[:61]
    if type(value) is list:
        return [_beginning(each) for each in value[:30]]
    if type(value) is dict:
        return {_beginning(key): _beginning(each) for key, each in islice(value.items(), 30)}
    return value


class GGUFTruncatedError(GGUFError):
    """The file, or the part of it that was read, ends before its header does. More bytes may complete it.

    Args:
        reason: as in `GGUFError`.
        needed: how many bytes from the beginning of the file the header has at least.
        path: as in `GGUFError`.
        offset: as in `GGUFError`.

    Attributes:
        needed: the argument.
    """

    def __init__(
        self, reason: str, needed: int, *, path: str | PathLike[str] | None = None, offset: int | None = None
    ) -> None:
        super().__init__(reason, path=path, offset=offset)
        self.needed = needed


class GGUFWarning(UserWarning):
    """The file is readable, but something in it is unusual."""
