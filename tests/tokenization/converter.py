"""What llama.cpp's converter makes of the tokenizers in folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.peers.llama_cpp import run_converter
from torchgguf.container import Metadata, open_gguf


def converted(folders: Mapping[Path, str]) -> dict[Path, Metadata]:
    """The metadata `tokenizer.*` for each folder, given with its splitting rule, "" to have that found."""
    for folder, split in folders.items():
        run_converter([str(folder), "--outfile", f"{folder}.gguf", "--vocab-only"], split)
    return {folder: tokenizer_part(Path(f"{folder}.gguf")) for folder in folders}


def tokenizer_part(path: Path) -> Metadata:
    """The keys `tokenizer.*` of a file, with their types."""
    part = Metadata()
    with open_gguf(path) as file:
        for key, value in file.metadata.items():
            if key.startswith("tokenizer."):
                part.set_unchecked(key, value, file.metadata.types[key])
    return part


def differences(ours: Metadata, theirs: Metadata) -> dict[str, tuple[Any, Any]]:
    """The keys whose values or types are not the same, with both, lists cut to where they differ."""
    found = {}
    for key in ours.keys() | theirs.keys():
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
            pairs = [(i, a, b) for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b]
            mine, other = [(i, a) for i, a, _ in pairs], [(i, b) for i, _, b in pairs]
        if mine != other or ours.types.get(key) != theirs.types.get(key):
            found[key] = (mine, other)
    return found
