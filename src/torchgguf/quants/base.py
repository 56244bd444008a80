"""What a quantization type is, the register of all of them, and whole tensors packed and unpacked."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from torchgguf._extension import native
from torchgguf.container.tensor_types import BLOCK_SIZES

# ggml's own formats for activations: they have ids, but no file holds tensors of them.
_INTERNAL = {GGMLQuantizationType.Q8_1, GGMLQuantizationType.Q8_K}

# Blocks are decoded and encoded a few at a time so that the temporaries stay small and in the cache.
_WEIGHTS_AT_ONCE = 1 << 20

# In units of the mean importance. So little changes no choice between weights that do count.
_LEAST_IMPORTANCE = 1e-6

_LAYOUTS = {kind.name: (kind.value, sizes) for kind, sizes in BLOCK_SIZES.items()}

_types: dict[int, "QuantType"] = {}


class QuantType(ABC):
    """One way to store numbers, in blocks of `block_size` weights that take `type_size` bytes.

    A type is a subclass that has the type's name; defining it registers it. Its id and sizes are those that
    the container reads files by. There is one instance of each type, which `quant_type` finds; copies and
    pickles of it are that instance again.
    """

    name: ClassVar[str]
    id: ClassVar[int]
    block_size: ClassVar[int]
    type_size: ClassVar[int]
    #: The dtype of plain types, which store each number as torch does; None for packed types.
    dtype: ClassVar[torch.dtype | None] = None
    #: So few bits that packing without importances would ruin a model; as ggml does, `quantize` refuses it.
    needs_importance: ClassVar[bool] = False

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        cls.name = cls.__name__
        if cls.name not in _LAYOUTS:
            raise TypeError(f"{cls.name} is no type that container.tensor_types lists")
        cls.id, (cls.block_size, cls.type_size) = _LAYOUTS[cls.name]
        _types[cls.id] = cls()

    @abstractmethod
    def decode(self, blocks: Tensor) -> Tensor:
        """Unpacks blocks, uint8 (n, type_size), to (n, block_size) numbers.

        They are float32, to the last bit as ggml unpacks them; those of a plain type are of its own dtype.
        """

    @abstractmethod
    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        """Packs weights, float32 (n, block_size) and finite, to uint8 (n, type_size).

        `importance`, of the same shape and above zero, says how much an error of each weight matters.
        """

    def bytes_per_row(self, weights: int) -> int:
        """The bytes that a row of so many weights takes."""
        blocks, rest = divmod(weights, self.block_size)
        if rest:
            raise ValueError(
                f"{weights} weights a row do not divide into {self.name} blocks of {self.block_size}"
            )
        return blocks * self.type_size

    def weights_per_row(self, size: int) -> int:
        """The weights that a row of so many bytes holds."""
        blocks, rest = divmod(size, self.type_size)
        if rest:
            raise ValueError(
                f"{size} bytes a row do not divide into {self.name} blocks of {self.type_size} bytes"
            )
        return blocks * self.block_size

    def __repr__(self) -> str:
        return f"<{self.name}: {self.block_size} weights in {self.type_size} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        return quant_type, (self.id,)


QuantTypeLike: TypeAlias = QuantType | GGMLQuantizationType | str | int


def quant_types() -> tuple[QuantType, ...]:
    """All types, by id."""
    return tuple(_types[id] for id in sorted(_types))


def quant_type(type: QuantTypeLike) -> QuantType:
    """The type of this name (in any case), ggml id or gguf.GGMLQuantizationType; else a ValueError."""
    if isinstance(type, QuantType):
        return type
    key = type.upper() if isinstance(type, str) else int(type)
    for known in _types.values():
        if key in (known.name, known.id):
            return known
    for internal in _INTERNAL:
        if key in (internal.name, internal.value):
            raise ValueError(f"{internal.name} is what ggml computes with; tensors are not stored in it")
    names = ", ".join(known.name for known in quant_types())
    raise ValueError(f"unknown quantization type {type!r}: known are {names}")


def dequantize(packed: Tensor, type: QuantTypeLike, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpacks a tensor, on the device where it is.

    `packed` is uint8 (..., bytes of a row); for a plain type it may also be the numbers themselves. The
    result is (..., weights of a row): float32 as ggml unpacks it to the last bit, another dtype that rounded.
    """
    kind = quant_type(type)
    if kind.dtype is not None and packed.dtype == kind.dtype:
        return packed.to(dtype)
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed {kind.name} weights must be a uint8 tensor, not {packed.dtype}")
    shape = (*packed.shape[:-1], kind.weights_per_row(packed.shape[-1]))
    blocks = packed.reshape(packed.numel() // kind.type_size, kind.type_size)
    weights = torch.empty(len(blocks), kind.block_size, dtype=dtype, device=packed.device)
    step = _WEIGHTS_AT_ONCE // kind.block_size
    for start in range(0, len(blocks), step):
        weights[start : start + step] = kind.decode(blocks[start : start + step])
    return weights.view(shape)


def quantize(weights: Tensor, type: QuantTypeLike, imatrix: Tensor | None = None) -> Tensor:
    """Packs weights (..., k) to uint8 (..., bytes of a row), on the device where they are.

    `imatrix`, (k,), is the importance of each column: the mean of the squares of the activations that it is
    multiplied by, in any unit. Then the error so weighted is what packing makes small, else the plain one.
    For the matrices of experts, (experts, rows, k), it may be that of each, (experts, k). Q8_0 and the plain
    types take no notice of it.

    ValueError for importances that are not finite or below zero, for rows that do not divide into blocks, for
    IQ2_XXS, IQ2_XS and IQ1_S without importances, and for weights that are not finite, unless the type is a
    plain one, to which they are cast.
    """
    kind = quant_type(type)
    columns = weights.shape[-1]
    size = kind.bytes_per_row(columns)
    if kind.dtype is not None:
        return kind.encode(weights.reshape(-1, 1)).reshape(*weights.shape[:-1], size)
    if kind.needs_importance and imatrix is None:
        raise ValueError(f"packing to {kind.name} needs an importance matrix; pass imatrix=")
    packed = torch.empty(*weights.shape[:-1], size, dtype=torch.uint8, device=weights.device)
    if imatrix is not None and imatrix.dim() == 2 and weights.shape[:-2] == imatrix.shape[:1]:
        for matrix, own, target in zip(weights, imatrix, packed, strict=True):
            _encode_matrix(kind, matrix, _importance(own, columns, weights.device), target)
    else:
        importance = None if imatrix is None else _importance(imatrix, columns, weights.device)
        rows = weights.reshape(weights.numel() // max(columns, 1), columns)
        _encode_matrix(kind, rows, importance, packed.view(len(rows), size))
    return packed


def _encode_matrix(kind: QuantType, rows: Tensor, importance: Tensor | None, packed: Tensor) -> None:
    """Packs rows (n, k) into `packed`, uint8 (n, bytes of a row), a few at a time."""
    if not rows.numel():
        return
    step = max(_WEIGHTS_AT_ONCE // rows.shape[1], 1)
    for part, target in zip(rows.split(step), packed.split(step), strict=True):
        numbers = part.float()
        if not all(end.isfinite() for end in numbers.aminmax()):
            raise ValueError(f"weights that are infinite or not a number cannot be packed to {kind.name}")
        _encode_rows(kind, numbers, importance, target)


def _encode_rows(kind: QuantType, rows: Tensor, importance: Tensor | None, packed: Tensor) -> None:
    """Packs rows, float32 (n, k), into `packed`, uint8 (n, bytes of a row): natively where that is built."""
    if native is not None and rows.device.type == "cpu":
        rows = rows.contiguous()
        n, k = rows.shape
        at = 0 if importance is None else importance.data_ptr()
        threads = torch.get_num_threads()
        if native.quantize_rows(kind.id, rows.data_ptr(), at, packed.data_ptr(), n, k, threads):
            return
    columns = None if importance is None else importance.expand(rows.shape).reshape(-1, kind.block_size)
    packed.copy_(kind.encode(rows.reshape(-1, kind.block_size), columns).view(packed.shape))


def _importance(imatrix: Tensor, columns: int, device: torch.device) -> Tensor:
    """Checked, in units of its mean, and nowhere zero: what never counted in the data may count elsewhere."""
    if imatrix.shape != (columns,):
        raise ValueError(
            f"weights of {columns} columns need that many importances, not {tuple(imatrix.shape)}"
        )
    importance = imatrix.to(device, torch.float32).contiguous()
    if not (importance.isfinite() & (importance >= 0)).all():
        raise ValueError("importances must be finite and not below zero")
    mean = importance.double().mean().float()
    return (importance / mean).clamp(min=_LEAST_IMPORTANCE) if mean > 0 else torch.ones_like(importance)
