"""What there is at a place: a GGUF file, or a Hugging Face checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Unpack

from torchgguf.container import GGUFFile, open_gguf
from torchgguf.hub import HubOptions, find_gguf
from torchgguf.models.io.checkpoint import CONFIG, Checkpoint


@contextmanager
def open_source(
    place: str | PathLike[str], gguf_file: str | None = None, **hub: Unpack[HubOptions]
) -> Iterator[GGUFFile | Checkpoint]:
    """Open what `from_pretrained` is given; arguments and errors are those of it."""
    if gguf_file is not None or is_gguf(Path(place)):
        with open_gguf(find_gguf(place, gguf_file, **hub)) as file:
            yield file
    else:
        yield Checkpoint(place, **hub)


def is_gguf(place: Path) -> bool:
    """Tell GGUF files, whatever they are called, and folders with nothing else."""
    if place.is_dir():
        return not (place / CONFIG).exists() and any(place.glob("*.gguf"))
    return place.suffix == ".gguf" or (
        place.is_file() and place.suffix not in (".safetensors", ".bin", ".json")
    )
