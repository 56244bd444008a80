"""Change the types of a GGUF file, of any architecture."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from torchgguf.container import GGUFFile, TensorType, open_gguf, write_gguf, write_split
from torchgguf.container.atomic import check_not_read
from torchgguf.container.tensor_types import TENSOR_TYPES
from torchgguf.container.tensors import storage_nbytes
from torchgguf.container.writing.writer import ByteProgress
from torchgguf.packing import PackedTensor, PackingReport, Quantization, pack_tensors
from torchgguf.packing.packing import INTEGERS
from torchgguf.quants import QuantType


class RequantizationPlan(NamedTuple):
    """The expected result of `requantize`.

    Attributes:
        report: the new tensors; their errors are unknown and 0.
        obstacle: why `requantize` would fail, or None.
    """

    report: PackingReport
    obstacle: str | None


def requantize(
    path: str | PathLike[str],
    out: str | PathLike[str],
    quantization: Quantization | str,
    *,
    keep_split: bool = False,
    report: PackingReport | None = None,
    progress: ByteProgress | None = None,
) -> list[Path]:
    """Write the model in a GGUF file with other types, one tensor at a time.

    Args:
        path: the file to read; for a split model, any of its files.
        out: the file to create or replace.
        quantization: the options, or only the name of a recipe such as `"Q4_K_M"`.
        keep_split: write as many files as the source has, with the same tensors in each; their names are
            `out-00001-of-00003.gguf` and so on.
        report: is filled with the new tensors and their errors.
        progress: is called with `(done, total)` bytes.

    Returns:
        The paths of the written files.

    Raises:
        ValueError: `out` is one of the files to read or the importance matrix; packing a tensor is not
            possible (the message names it); or with `keep_split`, the model is not split.
        GGUFError: the source is invalid or incomplete, or the disk is full; nothing was changed.
        FileExistsError: with `keep_split`, one of the new files exists already.
    """
    quantization = Quantization.of(quantization)
    with open_gguf(path) as file:
        _check_model(file)
        if keep_split:
            _check_split(file)
        check_not_read(out, *file.paths, quantization.imatrix_file)
        metadata = file.metadata.copy()
        tensors = pack_tensors(metadata, file.sources(passing=True), quantization, report)
        if not keep_split:
            write_gguf(out, metadata, tensors, progress=progress)
            return [Path(out)]
        parts: list[list[str]] = [[] for _ in file.paths]
        for name, info in file.tensors.items():
            parts[info.shard].append(name)
        return write_split(out, metadata, tensors, parts, progress=progress)


def plan_requantization(
    path: str | PathLike[str], quantization: Quantization, *, keep_split: bool = False
) -> RequantizationPlan:
    """Return what `requantize` would write, without reading any tensor.

    Args:
        path: as in `requantize`.
        quantization: as in `requantize`.
        keep_split: as in `requantize`.

    Raises:
        GGUFError: the file is invalid.
    """
    with open_gguf(path) as file:
        choices = quantization.plan(file.metadata, {name: info.shape for name, info in file.tensors.items()})
        report, obstacle = PackingReport(), None
        for name, info in file.tensors.items():
            choice = None if info.dtype in INTEGERS else choices.get(name)
            new, wanted = (info.type, info.type) if choice is None else map(_tensor_type, choice[:2])
            nbytes = storage_nbytes(info.shape, new)
            report.add(PackedTensor(name, info.shape, info.type, new, wanted, nbytes))
        try:
            _check_model(file)
            if keep_split:
                _check_split(file)
            pack_tensors(file.metadata.copy(), file.sources(), quantization, PackingReport())
        except ValueError as error:
            obstacle = str(error)
    return RequantizationPlan(report, obstacle)


def _check_model(file: GGUFFile) -> None:
    if (kind := file.metadata.get("general.type")) == "imatrix":
        raise ValueError(f"{file.paths[0]} is not a model: its general.type is {kind!r}")


def _check_split(file: GGUFFile) -> None:
    if len(file.paths) == 1:
        raise ValueError(f"{file.paths[0]} is a complete model: there is no split to keep")


def _tensor_type(kind: QuantType) -> TensorType:
    return TENSOR_TYPES[kind.id]
