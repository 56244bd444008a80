"""What llama.cpp's llama-imatrix made of tiny models and a text: see tests/goldens/imatrix.py."""

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.support import ROOT

GOLDENS = ROOT / "tests" / "data" / "imatrix"
TEXT = ROOT / "tests" / "data" / "gpl-3.0.txt"
FIGURES: dict[str, Any] = json.loads((GOLDENS / "figures.json").read_text())
MODELS = list(FIGURES["models"])
CHUNK_SIZE: int = FIGURES["chunk_size"]
CHUNKS = 5


def read(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sums `(experts, columns)` and counts `(experts,)` of each tensor, as gguf-py reads them."""
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    names = [name.removesuffix(".counts") for name in tensors if name.endswith(".counts")]
    return {
        name: (np.atleast_2d(tensors[f"{name}.in_sum2"]), tensors[f"{name}.counts"].flatten())
        for name in names
    }


def means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What llama-quantize makes of them (tools/quantize/quantize.cpp: load_imatrix)."""
    rows = [row / count if count else np.ones_like(row) for row, count in zip(sums, counts, strict=True)]
    return np.stack(rows)


def read_dat(path: Path) -> dict[str, np.ndarray]:
    """What llama-quantize makes of a file in the older format: means, flat."""
    data, at, found = path.read_bytes(), 4, {}
    for _ in range(struct.unpack_from("<i", data)[0]):
        (length,) = struct.unpack_from("<i", data, at)
        name = data[at + 4 : at + 4 + length].decode()
        calls, count = struct.unpack_from("<ii", data, at + 4 + length)
        at += 12 + length
        found[name] = np.frombuffer(data, "<f4", count, at) / calls
        at += 4 * count
    return found
