"""Mention the projectors of images and sound that a model comes with: nothing here runs them."""

from collections.abc import Sequence

from torchgguf.cli.options import split_place
from torchgguf.cli.terminal import note, one_line


def projector_line(names: Sequence[str]) -> list[str]:
    """Return one line that names projectors, or none."""
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"{one_line(names[0])}{more}: beside it, for images or sound; only text is supported"]


def mention_projectors(file: str) -> None:
    """Note the projectors beside a file, a path or REPO:FILE, if there are any."""
    from torchgguf.hub import find_projectors

    for line in projector_line(find_projectors(*split_place(file))):
        note(line)
