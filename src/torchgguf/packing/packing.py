"""Pack tensors from one type to another while they are written, a slab of rows at a time."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from gguf import GGML_QUANT_VERSION
from torch import Tensor

from torchgguf import kernels
from torchgguf.container import Metadata, TensorSource, TensorType, ValueType
from torchgguf.container.tensor_types import PLAIN, TENSOR_TYPES
from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix
from torchgguf.packing.planning import Choice, Overrides, plan_types
from torchgguf.packing.recipes import Recipe, recipe
from torchgguf.packing.report import PackedTensor, PackingReport
from torchgguf.quants import QuantType, QuantTypeLike, quant_type, quantize
from torchgguf.quants.capacity import exceeds

_logger = logging.getLogger(__name__)

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
        _log_fallbacks(choices.values())
    quantization.describe(metadata)
    return result


def _check(name: str, old: TensorSource, choice: Choice, quantization: Quantization) -> None:
    matrix = quantization.importances
    known = None if matrix is None else matrix.get(name, old.shape)
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
    packed_already = old.type not in PLAIN and choice.type.dtype is None
    if packed_already and not quantization.allow_requantize:
        raise ValueError(
            f"tensor {name!r} is packed to {old.type.name} already: packing it again to {choice.type.name} "
            "adds errors. Start from the original file, or allow it "
            "(--allow-requantize, Quantization(..., allow_requantize=True))"
        )


def _log_fallbacks(choices: Iterable[Choice]) -> None:
    """Log in one line which types were replaced."""
    fallen = Counter(f"{fit.name} for {wanted.name}" for fit, wanted, _ in choices if fit is not wanted)
    if fallen:
        swaps = ", ".join(f"{swap} in {count}" for swap, count in fallen.items())
        _logger.warning(
            "rows of some tensors do not divide into blocks of the recipe's types, replaced: %s", swaps
        )


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
        errors = None if report is None else _Errors()
        packed = _named(name, lambda: _repack(old, choice.type, importance, errors))
        if report is not None and errors is not None:
            sizes = (new.nbytes, errors.plain, errors.weighted)
            report.add(PackedTensor(name, old.shape, old.type, new_type, wanted, *sizes))
        return packed

    new = TensorSource(old.shape, new_type, load)
    return new


def _repack(old: TensorSource, kind: QuantType, importance: Tensor | None, errors: _Errors | None) -> Tensor:
    """Pack a tensor to another type, slab by slab."""
    rows = old.load_checked().detach()
    size = kind.bytes_per_row(old.shape[-1])
    packed = torch.empty(*rows.shape[:-1], size, dtype=torch.uint8, device=rows.device)
    for source, target, columns in _slabs(rows, packed, importance, max(_SLAB // old.shape[-1], 1)):
        numbers = source.float() if old.type in PLAIN else kernels.dequantize(source, quant_type(old.type))
        target.copy_(quantize(numbers, kind, columns))
        if exceeds(numbers, kind):
            raise ValueError(_TOO_LARGE.format(kind.name))
        if kind.dtype is not None:
            _check_finite(target.view(kind.dtype), kind.name)
        if errors is not None:
            errors.add(numbers, kernels.dequantize(target, kind), columns)
    return packed.view(kind.dtype or torch.uint8)


def _check_finite(numbers: Tensor, type_name: str) -> None:
    """Raise ValueError for weights that are not finite, as llama-quantize does."""
    if not all(end.isfinite() for end in numbers.aminmax()):
        raise ValueError(_TOO_LARGE.format(type_name))


def _slabs(
    rows: Tensor, packed: Tensor, importance: Tensor | None, step: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Split both tensors into slabs of rows, each with the importances of its columns, `(k,)`."""
    experts = math.prod(rows.shape[:-2])
    sources = rows.reshape(experts, *rows.shape[-2:]).split(step, dim=1)
    targets = packed.view(experts, *packed.shape[-2:]).split(step, dim=1)
    for source, target in zip(sources, targets, strict=True):
        for expert in range(experts):
            columns = importance[expert] if importance is not None and importance.dim() > 1 else importance
            yield source[expert], target[expert], columns


class _Errors:
    """Sums of the squares of weights, and of the squared errors from packing."""

    def __init__(self) -> None:
        self._squares = self._weighted_squares = torch.zeros(2, dtype=torch.float64, device="cpu")
        self._is_weighted = False

    def add(self, numbers: Tensor, packed: Tensor, importance: Tensor | None) -> None:
        """Add a slab `(rows, k)` before and after packing; `importance` `(k,)` is of its columns."""
        before, after = numbers.double(), packed.double()  # in float32 squares may overflow or underflow
        squares = torch.stack([after.sub_(before).square_().sum(0), before.square_().sum(0)])
        self._squares = self._squares + squares.sum(1).cpu()
        if importance is not None:
            self._is_weighted = True
            weighted = squares @ importance.to(squares.device, torch.float64)
            self._weighted_squares = self._weighted_squares + weighted.cpu()

    @property
    def plain(self) -> float:
        """The relative error sqrt(sum((new - old)^2) / sum(old^2))."""
        return _root_of_ratio(self._squares)

    @property
    def weighted(self) -> float | None:
        """The same with squares weighted by importance; None without importances."""
        return _root_of_ratio(self._weighted_squares) if self._is_weighted else None


def _root_of_ratio(sums: Tensor) -> float:
    error, whole = sums.tolist()
    return math.sqrt(error / whole) if whole > 0 else 0.0


def _named(name: str, work: Callable[[], _T]) -> _T:
    """Do work on a tensor, and name the tensor in a ValueError."""
    try:
        return work()
    except ValueError as error:
        raise ValueError(f"tensor {name!r}: {error}") from None


def _brief(text: str) -> str:
    """Cut a text, and drop bytes that are not UTF-8, which names of files may contain."""
    return text.encode(errors="surrogateescape")[:_LONGEST_TEXT].decode(errors="ignore")
