"""Packing speed beside ggml's, on real weight matrices. `packing_page.py` measures all types, and errors."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.figures import GGML_BUILDS, PACKED_TYPES, packing_metric

if TYPE_CHECKING:
    from torch import Tensor

    from torchgguf.quants import QuantType

Pack = Callable[["Tensor", "QuantType", "Tensor | None"], "Tensor"]
"""Packs weights, float32 (rows, columns), to a type, with importances (columns,) or None."""

PARTS = ("attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_down")
BLOCK = 256  # weights in the longest block of any type
ROWS = 256  # of each matrix: some types take a second for a million weights
SECONDS = 0.1  # duration of a sample, at least


@dataclass(frozen=True)
class Matrix:
    """Weights, float32 (rows, columns), and the importance of each column, (columns,)."""

    name: str
    weights: Tensor
    importance: Tensor


def matrices(model: Path, layers: tuple[int, ...], known: Mapping[str, Tensor] | None = None) -> list[Matrix]:
    """Return matrices of these layers, with random importances where they are not known.

    If blocks do not divide a row, a few rows are joined into one.
    """
    import torch

    from torchgguf import open_gguf
    from torchgguf.quants import dequantize

    found = []
    with open_gguf(model) as file:
        for layer, part in product(layers, PARTS):
            name = f"blk.{layer}.{part}.weight"
            rows = dequantize(file[name], file.tensors[name].type)
            columns = rows.shape[1]
            joined = next(count for count in range(1, BLOCK + 1) if columns * count % BLOCK == 0)
            rows = rows[: ROWS * joined]
            importance = (known or {}).get(name)
            if importance is None:
                importance = torch.rand(columns, generator=torch.Generator().manual_seed(0)) + 0.1
            weights = rows[: len(rows) // joined * joined].reshape(-1, columns * joined).contiguous()
            found.append(Matrix(f"{model.stem}: {name}", weights, importance.repeat(joined).contiguous()))
    return found


class Ggml:
    """ggml's packing, from a shared library; threads share the rows, as in llama.cpp."""

    def __init__(self, library: Path, threads: int) -> None:
        """Load the library."""
        self.library = ctypes.CDLL(str(library))
        integers, pointer = [ctypes.c_int64] * 3, ctypes.c_void_p
        self.library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, *integers, pointer]
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.threads, self.pool = threads, ThreadPoolExecutor(threads)

    def __call__(self, weights: Tensor, kind: QuantType, importance: Tensor | None) -> Tensor:
        """Pack weights, float32 (rows, columns)."""
        import torch

        rows, columns = weights.shape
        packed = torch.empty(rows, kind.bytes_per_row(columns), dtype=torch.uint8)
        places = weights.data_ptr(), packed.data_ptr()
        at = None if importance is None else importance.data_ptr()
        step = rows if self.threads == 1 else max(rows // (8 * self.threads), 1)

        def work(row: int) -> None:
            count = min(step, rows - row)
            self.library.ggml_quantize_chunk(kind.id, *places, row * columns, count, columns, at)

        self.library.ggml_quantize_init(kind.id)
        list(self.pool.map(work, range(0, rows, step)))
        return packed


def cases(names: tuple[str, ...] = ()) -> Iterator[tuple[QuantType, bool]]:
    """Yield packed types (those named, or all), each without (where supported) and with importances."""
    from torchgguf.quants import quant_types

    for kind in quant_types():
        if kind.dtype is None and (not names or kind.name in names):
            yield from ((kind, weighted) for weighted in (False, True)[kind.needs_importance :])


def speed(pack: Pack, kind: QuantType, weighted: bool, found: list[Matrix]) -> float:
    """Measure one sample, in million weights a second."""
    begin, passes = perf_counter(), 0
    while (seconds := perf_counter() - begin) < SECONDS:
        for matrix in found:
            pack(matrix.weights, kind, matrix.importance if weighted else None)
        passes += 1
    return passes * sum(matrix.weights.numel() for matrix in found) / seconds / 1e6


def speeds(pack: Pack, model: Path) -> dict[str, list[float]]:
    """Measure samples of speed for each figure."""
    found = matrices(model, (5,))
    samples = {}
    for kind, weighted in cases(PACKED_TYPES):
        pack(found[0].weights, kind, found[0].importance)  # the first use creates tables
        metric = packing_metric(kind.name, weighted)
        samples[metric] = [speed(pack, kind, weighted, found) for _ in range(3)]
    return samples


def torchgguf_packing(model: Path, threads: int) -> dict[str, list[float]]:
    """Measure the speed of our packing."""
    import torch

    from torchgguf.quants import quantize

    torch.set_num_threads(threads)
    return speeds(quantize, model)


def ggml_packing(model: Path, threads: int) -> dict[str, list[float]]:
    """Measure the speed of ggml's packing, of the build that the variable GGML names."""
    return speeds(Ggml(GGML_BUILDS[os.environ["GGML"]], threads), model)
