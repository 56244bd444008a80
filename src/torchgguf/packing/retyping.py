"""Tensors from one type to another, each when its turn to be written comes, a slab of rows at a time."""

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

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_SLAB = 1 << 21  # weights that are unpacked and packed at a time: 8 MB in float32
#: Dtypes of tables, which are never packed, whatever their names.
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
_LONGEST_TEXT = 127  # bytes that llama-quantize keeps of a name in metadata


@dataclass(frozen=True)
class Quantization:
    """How to pack a file.

    Attributes:
        recipe: one of llama-quantize's file types such as `"Q4_K_M"`, or `"NVFP4"` or `"MXFP4"`: all that
            can be packed to that type.
        imatrix: which weights matter: an importance matrix or the path of one.
        overrides: patterns (regular expressions, in any case), each with the type of tensors whose names have
            it in them, in pairs or as a mapping; the first pattern that is found counts.
        output_type: of the head; of the token embeddings too where the head has no weights of its own.
        token_embedding_type: of the token embeddings.
        pure: the recipe's main type for all that no other option names.
        leave_output: the head stays as it is.
        allow_requantize: pack again what is packed to another type already, and lose twice.
        imatrix_file: what the file is to say the importance matrix was called; the path, if that is given.

    Raises:
        ValueError: there is no such recipe, or no such type, or it is one of integers; or `overrides` are no
            patterns with types.
        GGUFError: the importance matrix is none.
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
                raise ValueError(f"{kind.name} holds integers, which weights are not: name another type")
        if self.imatrix is not None and not isinstance(self.imatrix, ImportanceMatrix):
            object.__setattr__(self, "imatrix_file", self.imatrix_file or os.fspath(self.imatrix))
            object.__setattr__(self, "imatrix", load_imatrix(self.imatrix))

    @classmethod
    def of(
        cls, asked: Quantization | str, imatrix: ImportanceMatrix | str | os.PathLike[str] | None = None
    ) -> Quantization:
        """Return what is asked for, if only by name; `imatrix`, if given, takes the place of its own."""
        if not isinstance(asked, Quantization):
            return cls(asked, imatrix)
        return asked if imatrix is None else replace(asked, imatrix=imatrix, imatrix_file=None)

    def plan(
        self, metadata: Mapping[str, object], tensors: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Choice]:
        """Choose the types of tensors, given by their shapes: see `plan_types`."""
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
                "overrides are patterns with types, such as {'ffn_down': 'Q6_K'} or [('ffn_down', 'Q6_K')], "
                f"and {odd[0]!r} is none"
            )
        return pairs

    @property
    def importances(self) -> ImportanceMatrix | None:
        """The importance matrix, which has been read if it was given by its path."""
        return self.imatrix if isinstance(self.imatrix, ImportanceMatrix) else None

    def describe(self, metadata: Metadata) -> None:
        """Set what llama-quantize says in a file's metadata of how it was packed."""
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
    """Change the types of a file's tensors; those that have the right one already are copied.

    Args:
        metadata: of the file; what llama-quantize says of types and importances is set in it.
        tensors: all of the file's.
        quantization: to what.
        report: is filled as the tensors are written; then errors are measured, which takes about as long
            again as the simpler types take to pack. Without it the log says where rows forced other types.

    Returns:
        The same tensors, to be loaded and packed when their turn comes: then a tensor is in memory as it was
        and as it will be, and a slab of it in float32. Weights that are not finite, copied ones too, or
        beyond what the type holds, raise a ValueError that names the tensor, when it is loaded.

    Raises:
        ValueError: a tensor is packed already; importances are missing for one, or are of another size; the
            message names it. Or importances are given, and none of any of these tensors.
    """
    choices = quantization.plan(metadata, {name: source.shape for name, source in tensors.items()})
    matrix = quantization.importances
    if matrix is not None and choices.keys().isdisjoint(matrix):
        raise ValueError("the importance matrix has nothing of any tensor: was it made from another model?")
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
            "there is no importance matrix" if matrix is None else "the importance matrix has nothing of it"
        )
        raise ValueError(
            f"tensor {name!r} cannot be packed to {choice.type.name}, of so few bits that some weights must "
            f"count for more than others: {none}. `torchgguf imatrix` makes one"
        )
    packed_already = old.type not in PLAIN and choice.type.dtype is None
    if packed_already and not quantization.allow_requantize:
        raise ValueError(
            f"tensor {name!r} is packed to {old.type.name} already: to pack it again to {choice.type.name} "
            "loses more than to pack what it was made from. Start from that, or say that it may "
            "(--allow-requantize, Quantization(..., allow_requantize=True))"
        )


def _log_fallbacks(choices: Iterable[Choice]) -> None:
    """Say in a line what the report would say."""
    fallen = Counter(f"{fit.name} for {wanted.name}" for fit, wanted, _ in choices if fit is not wanted)
    if fallen:
        swaps = ", ".join(f"{swap} in {count}" for swap, count in fallen.items())
        logger.warning("rows of some tensors do not divide into blocks of the recipe's types: %s", swaps)


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
    """Return a tensor in another type, packed slab by slab."""
    rows = old.load_checked().detach()
    size = kind.bytes_per_row(old.shape[-1])
    packed = torch.empty(*rows.shape[:-1], size, dtype=torch.uint8, device=rows.device)
    for source, target, columns in _slabs(rows, packed, importance, max(_SLAB // old.shape[-1], 1)):
        numbers = source.float() if old.type in PLAIN else kernels.dequantize(source, quant_type(old.type))
        target.copy_(quantize(numbers, kind, columns))
        if kind.dtype is not None:
            _check_finite(target.view(kind.dtype), kind.name)
        if errors is not None:
            errors.add(numbers, kernels.dequantize(target, kind), columns)
    return packed.view(kind.dtype or torch.uint8)


def _check_finite(numbers: Tensor, type_name: str) -> None:
    """Refuse what llama-quantize refuses: with such weights a model has no answers."""
    if not all(end.isfinite() for end in numbers.aminmax()):
        raise ValueError(f"it has weights that are no finite numbers, or too large for {type_name}")


def _slabs(
    rows: Tensor, packed: Tensor, importance: Tensor | None, step: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Take both tensors apart into slabs of rows with the importances of their columns, `(k,)`."""
    experts = math.prod(rows.shape[:-2])
    sources = rows.reshape(experts, *rows.shape[-2:]).split(step, dim=1)
    targets = packed.view(experts, *packed.shape[-2:]).split(step, dim=1)
    for source, target in zip(sources, targets, strict=True):
        for expert in range(experts):
            columns = importance[expert] if importance is not None and importance.dim() > 1 else importance
            yield source[expert], target[expert], columns


class _Errors:
    """Sums of the squares of weights and of what packing changes in them."""

    def __init__(self) -> None:
        self._squares = self._weighted_squares = torch.zeros(2, dtype=torch.float64, device="cpu")
        self._is_weighted = False

    def add(self, numbers: Tensor, packed: Tensor, importance: Tensor | None) -> None:
        """Take in a slab as it was and as it is, `(rows, k)`; `importance` is of its columns."""
        before, after = numbers.double(), packed.double()  # in float32 squares might overflow, or vanish
        squares = torch.stack([after.sub_(before).square_().sum(0), before.square_().sum(0)])
        self._squares = self._squares + squares.sum(1).cpu()
        if importance is not None:
            self._is_weighted = True
            weighted = squares @ importance.to(squares.device, torch.float64)
            self._weighted_squares = self._weighted_squares + weighted.cpu()

    @property
    def plain(self) -> float:
        """The root of the mean square error, over that of the mean square."""
        return _root_of_ratio(self._squares)

    @property
    def weighted(self) -> float | None:
        """The same with squares weighed by importance; None if there are none."""
        return _root_of_ratio(self._weighted_squares) if self._is_weighted else None


def _root_of_ratio(sums: Tensor) -> float:
    error, whole = sums.tolist()
    return math.sqrt(error / whole) if whole > 0 else 0.0


def _named(name: str, work: Callable[[], _T]) -> _T:
    """Do work on a tensor; what goes wrong names it."""
    try:
        return work()
    except ValueError as error:
        raise ValueError(f"tensor {name!r}: {error}") from None


def _brief(text: str) -> str:
    """Cut a text, and leave out what is not UTF-8, as names of files need not be."""
    return text.encode(errors="surrogateescape")[:_LONGEST_TEXT].decode(errors="ignore")
