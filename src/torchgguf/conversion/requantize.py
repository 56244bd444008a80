"""A GGUF file with other types, of whatever architecture it is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from torchgguf.container import GGUFFile, TensorType, open_gguf, write_gguf, write_split
from torchgguf.container.tensor_types import TENSOR_TYPES
from torchgguf.container.tensors import storage_nbytes
from torchgguf.container.writer import Progress
from torchgguf.packing import PackedTensor, PackingReport, Quantization, pack_tensors
from torchgguf.packing.retyping import INTEGERS
from torchgguf.quants import QuantType


class RequantizationPlan(NamedTuple):
    """What would become of a file.

    Attributes:
        report: the tensors as they would be; errors are not known.
        obstacle: why it cannot be done so; None if it can.
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
    progress: Progress | None = None,
) -> list[Path]:
    """Write the model in a GGUF file with other types, one tensor at a time.

    Args:
        path: the file to read; of a split model, any of its files.
        out: the file to write, or to replace once the new one is whole.
        quantization: to what; the name of a recipe, such as `"Q4_K_M"`, where nothing else is asked for.
        keep_split: write as many files as there are to read, with the same tensors in each; they are named
            `out-00001-of-00003.gguf` and so on.
        report: is filled with what became what, and with how much was lost.
        progress: told `(done, total)` bytes as they are written.

    Returns:
        The paths of what was written.

    Raises:
        ValueError: `out` is one of the files to read, of which the importance matrix is one; a tensor cannot
            be packed so, and the message names it; or with `keep_split` there is no split to keep.
        GGUFError: the file to read is not sound or not whole, or the disk is full; nothing was changed.
        FileExistsError: with `keep_split`, one of the files is there already.
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
    """Say what `requantize` would write, without reading a tensor."""
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


def check_not_read(out: str | PathLike[str], *read: str | PathLike[str] | None) -> None:
    """ValueError if a file to write is one of those to read."""
    if Path(out).resolve() in {Path(path).resolve() for path in read if path is not None}:
        raise ValueError(f"{out} is what is to be read, and would be lost: name another file to write")


def _check_model(file: GGUFFile) -> None:
    if (kind := file.metadata.get("general.type")) == "imatrix":
        raise ValueError(f"{file.paths[0]} holds no model: its general.type is {kind!r}")


def _check_split(file: GGUFFile) -> None:
    if len(file.paths) == 1:
        raise ValueError(f"{file.paths[0]} is a whole model: there is no split to keep")


def _tensor_type(kind: QuantType) -> TensorType:
    return TENSOR_TYPES[kind.id]
