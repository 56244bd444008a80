"""Read the adapter at a place: PEFT's folder, a repository, or a GGUF file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Unpack

from torchgguf.hub import HubOptions, find_gguf, names_gguf_file
from torchgguf.training.adapters.gguf_files import FileAdapter, read_gguf_adapter
from torchgguf.training.adapters.peft_files import PeftAdapter, read_peft_adapter


def read_adapter(
    place: str | PathLike[str], gguf_file: str | None = None, **hub: Unpack[HubOptions]
) -> PeftAdapter | FileAdapter:
    """Read an adapter.

    Args:
        place: a folder of PEFT, a repository of the Hub, or a GGUF file.
        gguf_file: the name of a GGUF file in the folder or repository.
        hub: options for downloads.

    Raises:
        AdapterError: it is not a LoRA adapter; the message names what is unsupported.
        GGUFError, CheckpointError: a file is broken.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
    """
    if gguf_file is not None or names_gguf_file(place) or Path(place).is_file():
        return read_gguf_adapter(find_gguf(place, gguf_file, **hub))
    return read_peft_adapter(place, **hub)
