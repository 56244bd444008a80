"""Make tests/data/gguf_split: what llama.cpp's gguf-split makes of a tiny model by gguf-py, and of SmolLM2.

Usage: python -m tests.goldens.gguf_split PATH_TO_LLAMA_GGUF_SPLIT
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from tests.support import ROOT, SMOLLM2

FOLDER = ROOT / "tests" / "data" / "gguf_split"
# Names of the files to make, and how to make them.
SPLITS = {
    "tensors": ["--split-max-tensors", "2"],
    "empty-first": ["--split-max-tensors", "3", "--no-tensor-first-split"],
    "whole": ["--split-max-tensors", "9"],
}


def write_model(path: Path) -> None:
    """Write a file of five tensors whose sizes are no multiples of the alignment."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_token_list(["a", "b", "ü"])
    writer.add_array("x.list", [1, 2, 3])
    for index, (rows, columns) in enumerate([(3, 5), (2, 7), (2, 64), (13, 1), (5, 9)]):
        writer.add_tensor(
            f"blk.{index}.weight", np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(gguf_split: str) -> None:
    """Make all of it anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    model = FOLDER / "model.gguf"
    write_model(model)
    for name, options in SPLITS.items():
        subprocess.run([gguf_split, *options, model, FOLDER / name], check=True)
    with tempfile.TemporaryDirectory() as large:
        subprocess.run([gguf_split, "--split-max-size", "40M", SMOLLM2, Path(large) / "smollm2"], check=True)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(large).iterdir()}
    (FOLDER / "smollm2.json").write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
