"""What a GGUF file says of a tensor, and what is needed to write one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchgguf.container.byte_order import swap_bytes
from torchgguf.container.encoder import encode_string
from torchgguf.container.errors import GGUFError
from torchgguf.container.tensor_types import BLOCK_SIZES, PLAIN, TensorType, storage_dtype, type_of_dtype

if TYPE_CHECKING:
    import torch

MAX_DIMS = 4  # ggml.h: GGML_MAX_DIMS
MAX_NAME_BYTES = 63  # ggml.h: GGML_MAX_NAME, less the NUL that ends it


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the header describes it.

    `shape` counts elements and is in torch's order, the rows' length last (GGUF itself lists it first).
    `offset` is where the first byte lies in its file, the `shard`-th of the files that were opened.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int
    shard: int = 0

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """The shape of the torch tensor that holds it: the last dimension counts bytes if it is packed."""
        return storage_shape(self.shape, self.type)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the torch tensor that holds it: uint8 if it is packed."""
        return storage_dtype(self.type)


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that is loaded when it is needed.

    Attributes:
        shape: elements in each dimension, in torch's order.
        type: how the elements are stored: a dtype, or a type of GGUF.
        load: returns a tensor of `dtype`, of this shape or, where GGUF packs the type, of uint8 rows
            `(*shape[:-1], bytes_per_row)`.
    """

    shape: tuple[int, ...]
    type: torch.dtype | TensorType
    load: Callable[[], torch.Tensor]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor that `load` returns: uint8 if it is packed."""
        return storage_dtype(self.type) if isinstance(self.type, TensorType) else self.type

    @property
    def is_packed(self) -> bool:
        """Whether the elements are packed in blocks."""
        return isinstance(self.type, TensorType) and self.type not in PLAIN

    @property
    def nbytes(self) -> int:
        """Bytes on disk, without padding."""
        if isinstance(self.type, TensorType):
            return storage_nbytes(self.shape, self.type)
        return prod(self.shape) * self.type.itemsize


@dataclass(frozen=True, slots=True)
class TensorSource(LazyTensor):
    """A lazy tensor of a GGUF type, as `write_gguf` writes it.

    Attributes:
        read: returns the bytes of a little-endian file without torch; by default they are those of `load()`.
    """

    type: TensorType
    read: Callable[[], memoryview] | None = None

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSource:
        """The source of a tensor in memory. Its dtype says its type; packed bytes need `TensorSource`."""
        tensor_type = type_of_dtype(tensor.dtype)
        if tensor_type is None:
            raise GGUFError(
                f"{tensor.dtype} alone does not say how the tensor is stored: wrap it in a TensorSource"
            )
        return cls(tuple(tensor.shape), tensor_type, lambda: tensor)

    def data(self) -> memoryview:
        """The bytes as they lie in a little-endian file."""
        if self.read is not None:
            return self.read()
        import torch

        tensor = self.load_checked().detach().cpu().contiguous()
        data: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
        return (data if sys.byteorder == "little" else swap_bytes(data, self.type)).data

    def load_checked(self) -> torch.Tensor:
        """The tensor, which is certain to be what this source promises."""
        tensor = self.load()
        dtype, shape = self.dtype, storage_shape(self.shape, self.type)
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise GGUFError(
                f"{self.type.name} of shape {self.shape} must be {dtype} of shape {shape}, "
                f"but it is {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        return tensor


def check_tensor(name: str, shape: tuple[int, ...], tensor_type: TensorType) -> None:
    """Raise GGUFError if ggml could not hold a tensor of this name, shape and type."""
    name_bytes = len(encode_string(name)) - 8  # less its length, which stands before it
    if name_bytes > MAX_NAME_BYTES:
        raise GGUFError(f"its name has {name_bytes} bytes, but ggml allows {MAX_NAME_BYTES}")
    if len(shape) > MAX_DIMS:
        raise GGUFError(f"it has {len(shape)} dimensions, but ggml allows {MAX_DIMS}")
    if min(shape, default=1) < 1:
        raise GGUFError(f"its shape {shape} holds no elements")
    block_size, _ = BLOCK_SIZES[tensor_type]
    row = shape[-1] if shape else 1
    if row % block_size:
        raise GGUFError(f"its rows of {row} elements are no whole {tensor_type.name} blocks of {block_size}")


def storage_nbytes(shape: tuple[int, ...], tensor_type: TensorType) -> int:
    """Bytes of a tensor on disk, without padding."""
    block_size, type_size = BLOCK_SIZES[tensor_type]
    return prod(shape) // block_size * type_size


def storage_shape(shape: tuple[int, ...], tensor_type: TensorType) -> tuple[int, ...]:
    """The shape of the torch tensor that holds it: in elements, but for packed types rows count bytes."""
    if tensor_type in PLAIN:
        return shape
    block_size, type_size = BLOCK_SIZES[tensor_type]
    return (*shape[:-1], shape[-1] // block_size * type_size)
