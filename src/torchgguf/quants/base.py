"""What a quantization type is, and the register of all of them."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from torchgguf.container.tensor_types import BLOCK_SIZES

# ggml's own formats for activations: they have ids, but no file holds tensors of them.
_INTERNAL = {GGMLQuantizationType.Q8_1, GGMLQuantizationType.Q8_K}

_LAYOUTS = {kind.name: (kind.value, sizes) for kind, sizes in BLOCK_SIZES.items()}

_types: dict[int, "QuantType"] = {}
_types_by_name: dict[str, "QuantType"] = {}


class QuantType(ABC):
    """One way to store numbers, in blocks of `block_size` weights that take `type_size` bytes.

    A type is a subclass that has the type's name; defining it registers it. Its id and sizes are those
    by which the container reads files. There is one instance of each type, which `quant_type` finds; copies
    and pickles of it are that instance again.
    """

    name: ClassVar[str]
    id: ClassVar[int]
    block_size: ClassVar[int]
    type_size: ClassVar[int]
    #: The dtype of plain types, which store each number as torch does; packed types set None.
    dtype: ClassVar[torch.dtype | None] = None
    #: So few bits that packing without importances would ruin a model: like ggml, `quantize` refuses it.
    needs_importance: ClassVar[bool] = False

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        cls.name = cls.__name__
        if cls.name not in _LAYOUTS:
            raise TypeError(f"container.tensor_types does not list {cls.name}")
        cls.id, (cls.block_size, cls.type_size) = _LAYOUTS[cls.name]
        _types[cls.id] = _types_by_name[cls.name] = cls()

    @abstractmethod
    def decode(self, blocks: Tensor) -> Tensor:
        """Unpack blocks, uint8 (n, type_size), to (n, block_size) numbers.

        They are float32, to the last bit as ggml unpacks them; those of a plain type are of its own dtype.
        """

    @abstractmethod
    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        """Pack weights, float32 (n, block_size) and finite, to uint8 (n, type_size).

        `importance`, of the same shape and above zero, weighs the error of each weight.
        """

    def bytes_per_row(self, weights: int) -> int:
        """Return the bytes of a row of so many weights; ValueError if these are not whole blocks."""
        if weights % self.block_size:
            raise ValueError(
                f"{weights} weights a row do not divide into {self.name} blocks of {self.block_size}"
            )
        return weights // self.block_size * self.type_size

    def weights_per_row(self, size: int) -> int:
        """Return the weights of a row of so many bytes; ValueError if these are not whole blocks."""
        if size % self.type_size:
            raise ValueError(
                f"{size} bytes a row do not divide into {self.name} blocks of {self.type_size} bytes"
            )
        return size // self.type_size * self.block_size

    def __repr__(self) -> str:
        return f"<{self.name}: {self.block_size} weights in {self.type_size} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        return quant_type, (self.id,)


QuantTypeLike: TypeAlias = QuantType | GGMLQuantizationType | str | int


def quant_types() -> tuple[QuantType, ...]:
    """Return all types, by id."""
    return tuple(_types[id] for id in sorted(_types))


def quant_type(type: QuantTypeLike) -> QuantType:
    """Find a type by its name (in any case), ggml id or gguf.GGMLQuantizationType.

    Raises:
        ValueError: there is no such type, or tensors are not stored in it.
    """
    if isinstance(type, QuantType):
        return type
    key = type.upper() if isinstance(type, str) else int(type)
    known = _types_by_name.get(key) if isinstance(key, str) else _types.get(key)
    if known is not None:
        return known
    for internal in _INTERNAL:
        if key in (internal.name, internal.value):
            raise ValueError(f"{internal.name} is what ggml computes with; tensors are not stored in it")
    names = ", ".join(kind.name for kind in quant_types())
    raise ValueError(f"unknown quantization type {type!r}: known are {names}")
