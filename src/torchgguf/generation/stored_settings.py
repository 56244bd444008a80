"""Read the settings of `generate` that a folder, a repository or a GGUF file states."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from torchgguf.container import open_gguf
from torchgguf.container.reading.recognition import is_gguf_file
from torchgguf.generation.gguf_settings import gguf_settings
from torchgguf.hub import find_file, find_gguf

FILE_NAME = "generation_config.json"


def read_settings(
    place: str | PathLike[str], name: str, gguf_file: str | None, **hub: Any
) -> tuple[dict[str, Any], str]:
    """Return settings as they are stored, and where they are from.

    Args:
        place: a folder or a repository of the Hugging Face Hub; or the file itself, JSON or GGUF.
        name: of the JSON file in it.
        gguf_file: the GGUF file in it, to read instead.
        hub: `HubOptions`.

    Raises:
        FileNotFoundError: there is no such file.
        GGUFError: the GGUF file is invalid.
        ValueError: the file is no JSON object.
    """
    stated = Path(place)
    if gguf_file is not None or (stated.is_file() and is_gguf_file(stated)):
        with open_gguf(find_gguf(place, gguf_file, **hub)) as file:
            return gguf_settings(file.metadata), str(file.paths[0])
    path = stated if stated.is_file() else find_file(place, name, **hub)
    return _json_object(path), str(path)


def _json_object(file: Path) -> dict[str, Any]:
    try:
        contents = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    if not isinstance(contents, dict):
        raise ValueError(f"{file} holds no JSON object")
    return contents
