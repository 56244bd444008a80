"""What can be wrong with a GGUF file."""

from os import PathLike


class GGUFError(Exception):
    """A GGUF file, or what should become one, is not as the format asks. One line: file, reason and place.

    What the operating system refuses (a missing file, no permission) stays the `OSError` that it is; a full
    disk is a `GGUFError`, because the file that was asked for does not come to be.
    """

    def __init__(
        self, reason: str, *, path: str | PathLike[str] | None = None, offset: int | None = None
    ) -> None:
        name = "" if path is None else f"{path}: "
        place = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{name}{reason}{place}")


def brief(value: object) -> str:
    """The value's repr, cut to what a message can hold."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class GGUFTruncatedError(GGUFError):
    """The file, or the part of it at hand, ends before its header does. With more bytes it may be whole."""


class GGUFWarning(UserWarning):
    """The file can be read, but something in it is unusual enough to be said."""
