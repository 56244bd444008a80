"""Read and write importance matrices as GGUF files, the format of `llama-imatrix` since 2025.

For each tensor there are `NAME.in_sum2`, float32 `(experts, columns)`, and `NAME.counts`, float32
`(experts, 1)`; a single row is stored without the first dimension (llama.cpp: tools/imatrix/imatrix.cpp).
"""

from __future__ import annotations

import warnings
from os import PathLike

import torch
from torch import Tensor

from torchgguf.container import (
    ArrayType,
    GGUFError,
    GGUFFile,
    GGUFWarning,
    Metadata,
    MetadataType,
    TensorType,
    ValueType,
    open_gguf,
    write_gguf,
)
from torchgguf.packing.column_statistics import Activations, Statistics

_KIND = "imatrix"
_TYPE, _DATASETS, _COUNT, _SIZE = (
    "general.type",
    "imatrix.datasets",
    "imatrix.chunk_count",
    "imatrix.chunk_size",
)
_SUMS, _COUNTS = ".in_sum2", ".counts"
_TYPES: dict[str, MetadataType] = {
    _TYPE: ValueType.STRING,
    _DATASETS: ArrayType(ValueType.STRING),
    _COUNT: ValueType.UINT32,
    _SIZE: ValueType.UINT32,
}


def read_gguf_imatrix(path: str | PathLike[str]) -> Statistics:
    """Read a file; errors are those of `load_imatrix`. The sums stay views of the mapped file."""
    file = open_gguf(path)
    try:
        _check_metadata(file.metadata)
        activations = {name: _activations(file, name) for name in _names(file)}
    except GGUFError as error:
        raise GGUFError(str(error), path=path) from None
    datasets, count, size = (file.metadata[key] for key in (_DATASETS, _COUNT, _SIZE))
    return Statistics(activations, datasets, count, size)  # type: ignore[arg-type]  # as their types say


def write_gguf_imatrix(path: str | PathLike[str], statistics: Statistics) -> None:
    """Write a file; errors are those of `ImportanceMatrix.save`."""
    values = {
        _TYPE: _KIND,
        _DATASETS: list(statistics.datasets),
        _COUNT: statistics.chunk_count,
        _SIZE: statistics.chunk_size,
    }
    tensors: dict[str, Tensor] = {}
    for name in sorted(statistics.activations, key=str.encode):
        known = statistics.activations[name]
        sums, counts = known.sums.float(), known.counts.float()[:, None]
        tensors[name + _SUMS], tensors[name + _COUNTS] = (
            rows[0] if len(rows) == 1 else rows for rows in (sums, counts)
        )
    write_gguf(path, Metadata(values, _TYPES), tensors)


def _check_metadata(metadata: Metadata) -> None:
    if (kind := metadata.get(_TYPE)) != _KIND:
        raise GGUFError(f"is not an importance matrix: {_TYPE} must be {_KIND!r}, got {kind!r}")
    for key, expected in _TYPES.items():
        if metadata.types.get(key) != expected:
            raise GGUFError(f"{key} {'has a wrong type' if key in metadata else 'is missing'}")
    if metadata[_SIZE] == 0:
        raise GGUFError(f"{_SIZE} must be at least 1, got 0")


def _names(file: GGUFFile) -> list[str]:
    """Return the names of the tensors that the statistics belong to."""
    names: dict[str, set[str]] = {}
    others = []
    for tensor in file.tensors:
        name, dot, what = tensor.rpartition(".")
        if dot + what in (_SUMS, _COUNTS):
            names.setdefault(name, set()).add(dot + what)
        else:
            others.append(tensor)
    if not names:
        raise GGUFError("contains no activations")
    if half := [name for name, parts in names.items() if len(parts) == 1]:
        raise GGUFError(f"{half[0]} needs {_SUMS} and {_COUNTS}, but has only {names[half[0]].pop()}")
    if others:
        message = f"{file.paths[0]}: ignored {len(others)} unknown tensors such as {others[0]}"
        warnings.warn(message, GGUFWarning, stacklevel=4)
    return list(names)


def _activations(file: GGUFFile, name: str) -> Activations:
    for part in (_SUMS, _COUNTS):
        if (found := file.tensors[name + part].type) is not TensorType.F32:
            raise GGUFError(f"{name}{part} must be F32, got {found.name}")
    sums, counts = file[name + _SUMS], file[name + _COUNTS].flatten()
    if sums.numel() % len(counts):
        raise GGUFError(
            f"{name} has {sums.numel()} sums, which is not a multiple of its {len(counts)} counts"
        )
    # NaN fails every comparison. Sums of an unknown count are not valid either.
    if not bool(((counts >= 0) & (counts < 2**53)).all()):
        counts, sums = torch.zeros_like(counts), torch.full_like(sums, torch.nan)
    return Activations(sums.view(len(counts), -1), counts.double().round().to(torch.int64))
