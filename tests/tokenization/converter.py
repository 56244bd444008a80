"""What llama.cpp's converter makes of the tokenizers in folders."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import LLAMA_CPP
from torchgguf.container import Metadata, open_gguf

# It takes one folder a run, and most of a run is importing. The way in which a byte-level vocabulary splits
# texts it knows by what published ones make of a text: a name beside the folder is for others.
_CONVERT_ALL = """
import runpy, sys
script, *folders = sys.argv[1:]
sys.path.insert(0, script.rpartition("/")[0])
from conversion.base import TextModel
find = TextModel.get_vocab_base_pre
for folder in folders:
    folder, out, split = folder.split("|")
    TextModel.get_vocab_base_pre = (lambda self, tokenizer: split) if split else find
    sys.argv = [script, folder, "--outfile", out, "--vocab-only"]
    runpy.run_path(script, run_name="__main__")
"""


def converted(folders: Mapping[Path, str]) -> dict[Path, Metadata]:
    """The metadata `tokenizer.*` for each folder, given with its splitting rule, "" to have that found."""
    script = LLAMA_CPP / "convert_hf_to_gguf.py"
    jobs = [f"{folder}|{folder}.gguf|{split}" for folder, split in folders.items()]
    command = [sys.executable, "-c", _CONVERT_ALL, str(script), *jobs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
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
