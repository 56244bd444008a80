"""Pack tensors from one type to another while they are written, a slab of rows at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from gguf import GGML_QUANT_VERSION
from torch import Tensor

from torchgguf import kernels
from torchgguf.container import Metadata, TensorSource, TensorType, ValueType
from torchgguf.container.tensor_types import PLAIN, TENSOR_TYPES
from torchgguf.packing.errors import PackingErrors
from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix
from torchgguf.packing.planning import Choice, Overrides, log_fallbacks, plan_types
from torchgguf.packing.recipes import Recipe, recipe
from torchgguf.packing.report import PackedTensor, PackingReport
from torchgguf.quants import QuantType, QuantTypeLike, quant_type, quantize
from torchgguf.quants.capacity import exceeds

_T = TypeVar("_T")

_TOO_LARGE = "it has weights that are not finite, or too large for {}"
_SLAB = 1 << 21  # weights in a slab: 8 MB in float32
#: Dtypes of integer tables, which are never packed.
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
_LONGEST_TEXT = 127  # bytes of a name that llama-quantize stores in metadata


@dataclass(frozen=True)
class Quantization:
    """The options for packing a file.

    Attributes:
        recipe: a file type of llama-quantize such as `"Q4_K_M"`; or `"NVFP4"` or `"MXFP4"`, which pack every
            packable tensor to that type.
        imatrix: an importance matrix, or the path of one.
        overrides: patterns (regular expressions, case is ignored) with types, as pairs or a mapping. Tensors
            get the type of the first pattern that matches anywhere in their name.
        output_type: the type of the head, and of the token embeddings if the head is tied to them.
        token_embedding_type: the type of the token embeddings.
        pure: use the main type of the recipe for all tensors that no other option names.
        leave_output: do not pack the head.
        allow_requantize: pack tensors again that are packed to another type already, which adds errors.
        imatrix_file: the name of the importance matrix in the metadata of the new file; by default its path.

    Raises:
        ValueError: the recipe or a type is unknown or stores integers, or `overrides` are not pairs of
            patterns and types.
        GGUFError: the importance matrix is invalid.
    """

    recipe: Recipe | str
    imatrix: ImportanceMatrix | str | os.PathLike[str] | None = None
    overrides: Overrides | Mapping[str, QuantTypeLike] = ()
    output_type: QuantTypeLike | None = None
    token_embedding_type: QuantTypeLike | None = None
    pure: bool = False
    leave_output: bool = False
    allow_requantize: bool = False
    imatrix_file: str | None = None

    def __post_init__(self) -> None:
        """Look up the recipe and the types, and read the importance matrix."""
        object.__setattr__(self, "recipe", recipe(self.recipe))
        for asked in (self.output_type, self.token_embedding_type, *(kind for _, kind in self._overrides)):
            if asked is not None and (kind := quant_type(asked)).dtype in INTEGERS:
                raise ValueError(f"{kind.name} stores integers: name a type for weights")
        if self.imatrix is not None and not isinstance(self.imatrix, ImportanceMatrix):
            object.__setattr__(self, "imatrix_file", self.imatrix_file or os.fspath(self.imatrix))
            object.__setattr__(self, "imatrix", load_imatrix(self.imatrix))

    @classmethod
    def of(
        cls, asked: Quantization | str, imatrix: ImportanceMatrix | str | os.PathLike[str] | None = None
    ) -> Quantization:
        """Convert the name of a recipe to a `Quantization`.

        Args:
            asked: a recipe by name, or a `Quantization`.
            imatrix: replaces the importance matrix of `asked`.
        """
        if not isinstance(asked, Quantization):
            return cls(asked, imatrix)
        return asked if imatrix is None else replace(asked, imatrix=imatrix, imatrix_file=None)

    def plan(
        self, metadata: Mapping[str, object], tensors: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Choice]:
        """Choose the types of tensors from their shapes, see `plan_types`."""
        return plan_types(
            recipe(self.recipe),
            metadata,
            tensors,
            has_imatrix=self.imatrix is not None,
            overrides=self._overrides,
            output_type=self.output_type,
            token_embedding_type=self.token_embedding_type,
            pure=self.pure,
            leave_output=self.leave_output,
        )

    @property
    def _overrides(self) -> Overrides:
        pairs = tuple(self.overrides.items() if isinstance(self.overrides, Mapping) else self.overrides)
        if odd := [pair for pair in pairs if isinstance(pair, str) or len(pair) != 2]:
            raise ValueError(
                "overrides must be patterns with types, such as {'ffn_down': 'Q6_K'} or "
                f"[('ffn_down', 'Q6_K')], got {odd[0]!r}"
            )
        return pairs

    @property
    def importances(self) -> ImportanceMatrix | None:
        """The importance matrix, loaded if `imatrix` was a path."""
        return self.imatrix if isinstance(self.imatrix, ImportanceMatrix) else None

    def describe(self, metadata: Metadata) -> None:
        """Set the metadata in which llama-quantize describes how a file was packed."""
        stated: dict[str, str | int] = {
            "general.quantization_version": GGML_QUANT_VERSION,
            "general.file_type": recipe(self.recipe).file_type,
        }
        if (matrix := self.importances) is not None:
            if self.imatrix_file is not None:
                stated["quantize.imatrix.file"] = _brief(self.imatrix_file)
            if matrix.datasets:
                stated["quantize.imatrix.dataset"] = _brief(matrix.datasets[0])
            stated["quantize.imatrix.entries_count"] = len(matrix)
            if matrix.chunk_count > 0:
                stated["quantize.imatrix.chunks_count"] = matrix.chunk_count
        for key, value in stated.items():
            metadata.set(key, value, ValueType.STRING if isinstance(value, str) else ValueType.UINT32)


def pack_tensors(
    metadata: Metadata,
    tensors: Mapping[str, TensorSource],
    quantization: Quantization,
    report: PackingReport | None = None,
) -> dict[str, TensorSource]:
    """Change the types of the tensors in a file. Tensors that have the right type already are copied.

    Args:
        metadata: the metadata of the file; the description of the packing is set in place.
        tensors: all tensors of the file by name.
        quantization: the options.
        report: is filled while the tensors are written. It measures errors, which takes about as long as
            packing to a simple type. Without it a warning is logged if rows required other types.

    Returns:
        The same tensors, which are loaded and packed when they are written. At that moment the old and the
        new tensor are in memory, and a slab in float32. Loading raises a ValueError that names the tensor if
        weights, also copied ones, are not finite or too large for the type.

    Raises:
        ValueError: a tensor is packed already, or its importances are missing or do not match its shape; the
            message names it. Or the importance matrix contains none of the tensors.
    """
    choices = quantization.plan(metadata, {name: source.shape for name, source in tensors.items()})
    matrix = quantization.importances
    if matrix is not None and choices.keys().isdisjoint(matrix):
        raise ValueError(
            "the importance matrix contains none of the tensors: does it belong to another model?"
        )
    result = {}
    for name, old in tensors.items():
        kind = quant_type(old.type)
        choice = choices.get(name)
        if choice is None or kind.dtype in INTEGERS:
            result[name] = _copied(name, old, old.type, report)
        elif choice.type is kind:
            result[name] = _copied(name, old, TENSOR_TYPES[choice.wanted.id], report)
        else:
            _check(name, old, choice, quantization)
            result[name] = _repacked(name, old, choice, matrix, report)
    if report is None:
        log_fallbacks(choices.values())
    quantization.describe(metadata)
    return result


def _check(name: str, old: TensorSource, choice: Choice, quantization: Quantization) -> None:
    find_importance(name, old.shape, choice, quantization.importances)
    packed_already = old.type not in PLAIN and choice.type.dtype is None
    if packed_already and not quantization.allow_requantize:
        raise ValueError(
            f"tensor {name!r} is packed to {old.type.name} already: packing it again to {choice.type.name} "
            "adds errors. Start from the original file, or allow it "
            "(--allow-requantize, Quantization(..., allow_requantize=True))"
        )


def find_importance(
    name: str, shape: tuple[int, ...], choice: Choice, matrix: ImportanceMatrix | None
) -> Tensor | None:
    """Return the importances of a tensor, or None if there are none and packing does not require them.

    Raises:
        ValueError: they are required, or do not match the shape; the message names the tensor.
    """
    known = None if matrix is None else matrix.get(name, shape)
    if choice.needs_importance and known is None:
        none = (
            "there is no importance matrix"
            if matrix is None
            else "the importance matrix does not contain this tensor"
        )
        raise ValueError(
            f"packing tensor {name!r} to {choice.type.name} requires importances, because the type has "
            f"so few bits: {none}. `torchgguf imatrix` creates one"
        )
    return known


def pack_tensor(name: str, weights: Tensor, choice: Choice, quantization: Quantization) -> Tensor:
    """Pack one tensor of a model that is in memory, as `pack_tensors` packs those of a file.

    Args:
        name: its name in a GGUF file.
        weights: the weights, plain and on any device.
        choice: its type, from `Quantization.plan`.
        quantization: the options.

    Returns:
        The rows of blocks, uint8 `(..., rows, bytes_per_row)`.

    Raises:
        ValueError: importances are missing or do not match the shape, or weights are not finite or too large
            for the type; the message names the tensor.
    """
    source = TensorSource.of(weights)
    _check(name, source, choice, quantization)
    importance = find_importance(name, source.shape, choice, quantization.importances)
    return _named(name, lambda: repack(source, choice.type, importance)).view(torch.uint8)


def _copied(name: str, old: TensorSource, wanted: TensorType, report: PackingReport | None) -> TensorSource:
    def load() -> Tensor:
        tensor = old.load()
        if tensor.is_floating_point():
            _named(name, lambda: _check_finite(tensor, old.type.name))
        if report is not None:
            report.add(PackedTensor(name, old.shape, old.type, old.type, wanted, old.nbytes))
        return tensor

    return replace(old, load=load)


def _repacked(
    name: str,
    old: TensorSource,
    choice: Choice,
    matrix: ImportanceMatrix | None,
    report: PackingReport | None,
) -> TensorSource:
    new_type, wanted = TENSOR_TYPES[choice.type.id], TENSOR_TYPES[choice.wanted.id]

    def load() -> Tensor:
        importance = None if matrix is None else matrix.get(name, old.shape)
        errors = None if report is None else PackingErrors()
        packed = _named(name, lambda: repack(old, choice.type, importance, errors))
        if report is not None and errors is not None:
            sizes = (new.nbytes, errors.plain, errors.weighted)
            report.add(PackedTensor(name, old.shape, old.type, new_type, wanted, *sizes))
        return packed

    new = TensorSource(old.shape, new_type, load)
    return new


def repack(
    old: TensorSource,
    kind: QuantType,
    importance: Tensor | None = None,
    errors: PackingErrors | None = None,
    change: Callable[[int, slice], Tensor] | None = None,
) -> Tensor:
    """Pack a tensor to another type, or with other weights, slab by slab.

    Args:
        old: the tensor.
        kind: the new type.
        importance: of its columns, `(k,)`, or of those of each expert, `(E, k)`.
        errors: adds up the errors.
        change: returns what is added to rows of a matrix, in float32, given the number of the matrix and the
            rows. Rows to which it adds nothing keep their bytes if the type stays.

    Returns:
        The tensor as files store it.

    Raises:
        ValueError: weights are not finite, or too large for the type.
    """
    rows = old.load_checked().detach()
    stays = TENSOR_TYPES[kind.id] is old.type
    size = kind.bytes_per_row(old.shape[-1])
    packed = torch.empty(*rows.shape[:-1], size, dtype=torch.uint8, device=rows.device)
    for slab in _slabs(rows, packed, importance, max(_SLAB // old.shape[-1], 1)):
        source, target = slab.source, slab.target
        numbers = source.float() if old.type in PLAIN else kernels.dequantize(source, quant_type(old.type))
        added = None if change is None else change(slab.matrix, slab.rows).to(numbers.device)
        if added is not None:
            numbers = numbers + added
        target.copy_(quantize(numbers, kind, slab.columns))
        if added is not None and stays:
            same = (added == 0).all(dim=-1)
            target[same] = source.view(torch.uint8)[same]
        if exceeds(numbers, kind):
            raise ValueError(_TOO_LARGE.format(kind.name))
        if kind.dtype is not None:
            _check_finite(target.view(kind.dtype), kind.name)
        if errors is not None:
            errors.add(numbers, kernels.dequantize(target, kind), slab.columns, added)
    return packed.view(kind.dtype or torch.uint8)


def _check_finite(numbers: Tensor, type_name: str) -> None:
    """Raise ValueError for weights that are not finite, as llama-quantize does."""
    if not all(end.isfinite() for end in numbers.aminmax()):
        raise ValueError(_TOO_LARGE.format(type_name))


class _Slab(NamedTuple):
    """Some rows of a matrix.

    Attributes:
        matrix: the number of the matrix.
        rows: which rows.
        source: the rows as they are stored.
        target: the rows to be, uint8.
        columns: importances of the columns, `(k,)`, or None.
    """

    matrix: int
    rows: slice
    source: Tensor
    target: Tensor
    columns: Tensor | None


def _slabs(rows: Tensor, packed: Tensor, importance: Tensor | None, step: int) -> Iterator[_Slab]:
    """Split both tensors into slabs of rows."""
    experts = math.prod(rows.shape[:-2])
    sources = rows.reshape(experts, *rows.shape[-2:])
    targets = packed.view(experts, *packed.shape[-2:])
    for start in range(0, sources.shape[1], step):
        some = slice(start, start + step)
        for expert in range(experts):
            columns = importance[expert] if importance is not None and importance.dim() > 1 else importance
            yield _Slab(expert, some, sources[expert, some], targets[expert, some], columns)


def _named(name: str, work: Callable[[], _T]) -> _T:
    """Do work on a tensor, and name the tensor in a ValueError."""
    try:
        return work()
    except ValueError as error:
        raise ValueError(f"tensor {name!r}: {error}") from None


def _brief(text: str) -> str:
    """Cut a text, and drop bytes that are not UTF-8, which names of files may contain."""
    return text.encode(errors="surrogateescape")[:_LONGEST_TEXT].decode(errors="ignore")
