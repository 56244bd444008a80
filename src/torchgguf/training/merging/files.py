"""Merge adapters into a GGUF file: what they do not change is copied byte for byte."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchgguf.container import GGUFFile, TensorSource, TensorType, open_gguf, write_gguf
from torchgguf.container.atomic import check_not_read
from torchgguf.container.tensor_types import TENSOR_TYPES
from torchgguf.container.writing.writer import ByteProgress
from torchgguf.models.core.usual_tensors import EMBEDDING, OUTPUT
from torchgguf.nn.factors import factor_name
from torchgguf.packing import ImportanceMatrix, load_imatrix
from torchgguf.packing.errors import PackingErrors
from torchgguf.packing.packing import find_importance, repack
from torchgguf.packing.planning import Choice, Overrides, fitting_type, overridden_types
from torchgguf.quants import QuantTypeLike, quant_type
from torchgguf.training.adapters.bases import Base
from torchgguf.training.adapters.changes import AdapterError, Change
from torchgguf.training.adapters.peft_files import PeftAdapter
from torchgguf.training.adapters.places import read_adapter
from torchgguf.training.merging.report import MergedTensor, MergeReport

_logger = logging.getLogger(__name__)

_Place = str | PathLike[str]


class _Merged(NamedTuple):
    """What becomes of a tensor.

    Attributes:
        changes: what is added to it.
        choice: its new type.
        importance: of its columns, or None.
        factor: the factors on its products, `(1,)` or `(E,)`, which apply to changes, too; or None.
    """

    changes: Sequence[Change]
    choice: Choice
    importance: Tensor | None
    factor: Tensor | None

    def rows(self, matrix: int, rows: slice) -> Tensor:
        """Return what is added to rows of a matrix, in float32."""
        added = torch.stack([change.rows(matrix, rows) for change in self.changes]).sum(0)
        if self.factor is None:
            return added
        return added / self.factor[matrix if len(self.factor) > 1 else 0]


def merge_into_gguf(
    path: _Place,
    adapters: _Place | Sequence[_Place] | Mapping[Any, float],
    out: _Place,
    *,
    quantization: QuantTypeLike | None = None,
    overrides: Overrides | Mapping[str, QuantTypeLike] = (),
    imatrix: ImportanceMatrix | _Place | None = None,
    report: MergeReport | None = None,
    progress: ByteProgress | None = None,
) -> MergeReport:
    """Write a GGUF file whose weights contain adapters: `W + scale * B @ A`, computed in float32.

    Only rows that change are packed anew. All other bytes of tensors, and all metadata, stay. One tensor is
    in memory at a time. A warning is logged if packing lost changes.

    Args:
        path: the file of the model; for a split model, any of its files.
        adapters: a folder of PEFT, a repository of the Hub, or a GGUF file; or several, perhaps with factors.
        out: the file to create, or to replace when the new one is complete.
        quantization: the type of all changed tensors, such as `"Q8_0"`; by default each keeps its own.
        overrides: types of changed tensors by patterns, as in `Quantization`.
        imatrix: an importance matrix, or the path of one.
        report: is filled; by default a new one is.
        progress: is called with `(done, total)` bytes.

    Returns:
        The report.

    Raises:
        AdapterError: an adapter is not LoRA, or does not belong to the model; the message names what differs.
        ValueError: `out` is one of the files to read, a pattern matches nothing, or packing a tensor is not
            possible (the message names it).
        GGUFError: a file is invalid or incomplete, or the disk is full; nothing was changed.
    """
    factors = _factors(adapters)
    report = MergeReport() if report is None else report
    matrix = imatrix if imatrix is None or isinstance(imatrix, ImportanceMatrix) else load_imatrix(imatrix)
    with open_gguf(path) as file:
        check_not_read(out, *file.paths, *factors, None if isinstance(imatrix, ImportanceMatrix) else imatrix)
        changes = _changes(file, factors, report)
        choices = _choices(file, list(changes), quantization, overrides)
        tensors = file.sources(passing=True)
        for name, found in changes.items():
            old, choice = tensors[name], choices[name]
            scale = factor_name(name)
            factor = file[scale].float().flatten().clone() if scale in file.tensors else None
            importance = find_importance(name, old.shape, choice, matrix)
            tensors[name] = _merged(name, old, _Merged(found, choice, importance, factor), report)
        write_gguf(out, file.metadata, tensors, progress=progress)
    if (advice := report.advice) is not None:
        _logger.warning("%s", advice)
    return report


def _factors(adapters: _Place | Sequence[_Place] | Mapping[Any, float]) -> dict[_Place, float]:
    if isinstance(adapters, Mapping):
        return dict(adapters)
    one = isinstance(adapters, (str, PathLike))
    return dict.fromkeys([adapters] if one else adapters, 1.0)  # type: ignore[list-item,arg-type]


def _changes(file: GGUFFile, factors: Mapping[Any, float], report: MergeReport) -> dict[str, list[Change]]:
    """Return what adapters change in a file, by the names of its tensors."""
    base: Base | None = None
    changes: dict[str, list[Change]] = {}
    for place, factor in factors.items():
        adapter = read_adapter(place)
        if isinstance(adapter, PeftAdapter):
            base = base or Base.open(file.paths[0])
            found: Mapping[str, Change] = base.in_file(adapter)
        else:
            adapter.check_architecture(str(file.metadata.get("general.architecture")), str(file.paths[0]))
            found = adapter.changes
        for name, change in found.items():
            _check(file, name, change, fspath(place))
            if change.is_zero or factor == 0:
                report.unchanged.append(name)
            else:
                changes.setdefault(name, []).append(change.times(factor))
    report.unchanged = [name for name in dict.fromkeys(report.unchanged) if name not in changes]
    return changes


def _check(file: GGUFFile, name: str, change: Change, place: str) -> None:
    info = file.tensors.get(name)
    if info is None:
        raise AdapterError(f"{file.paths[0]} has no tensor {name}, which {place} changes")
    if info.shape != change.shape:
        raise AdapterError(
            f"{place} changes a {name} of shape {change.shape}, but in {file.paths[0]} it has shape "
            f"{info.shape}"
        )
    if change.is_lookup and name == EMBEDDING and OUTPUT not in file.tensors:
        raise AdapterError(
            f"{place} changes {name} for lookups only, but the head of {file.paths[0]} shares it: use the "
            "adapter beside the file"
        )


def _choices(
    file: GGUFFile,
    names: Sequence[str],
    quantization: QuantTypeLike | None,
    overrides: Overrides | Mapping[str, QuantTypeLike],
) -> dict[str, Choice]:
    """Choose the types of changed tensors."""
    pairs = tuple(overrides.items() if isinstance(overrides, Mapping) else overrides)
    overridden = overridden_types(names, pairs)
    choices = {}
    for name in names:
        info = file.tensors[name]
        wanted = overridden.get(name) or quant_type(info.type if quantization is None else quantization)
        kind = fitting_type(wanted, info.shape[-1])
        choices[name] = Choice(kind, wanted, kind.needs_importance)
    return choices


def _merged(name: str, old: TensorSource, merged: _Merged, report: MergeReport) -> TensorSource:
    kind = merged.choice.type
    new_type: TensorType = TENSOR_TYPES[kind.id]

    def load() -> Tensor:
        errors = PackingErrors()
        try:
            packed = repack(old, kind, merged.importance, errors, merged.rows)
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from None
        sizes = (errors.plain, errors.kept, errors.cosine)
        report.add(MergedTensor(name, old.shape, old.type, new_type, *sizes))
        return packed

    return TensorSource(old.shape, new_type, load)
