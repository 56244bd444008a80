"""Descriptions of tensors: as a header lists them, and as a writer needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
MAX_NAME_BYTES = 63  # ggml.h: GGML_MAX_NAME without the final NUL


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The description of a tensor in a header.

    Attributes:
        name: the name in the file.
        shape: sizes in elements, in torch's order: the length of a row is last (in the file it is first).
        type: how the elements are stored.
        offset: the position of the first byte in its file.
        nbytes: the size in the file, without padding.
        shard: the index of its file among the files that were opened.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int
    shard: int = 0

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """The shape of the stored torch tensor; for packed types the last dimension counts bytes."""
        return storage_shape(self.shape, self.type)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the stored torch tensor: uint8 for packed types."""
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
        read: returns the bytes of a little-endian file without torch, in pieces; by default they are those
            of `load()`.
    """

    type: TensorType
    read: Callable[[], Iterator[memoryview]] | None = None

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSource:
        """Return the source of a plain tensor in memory, with the type of its dtype.

        Raises:
            GGUFError: GGUF has no plain type for this dtype; packed bytes need an explicit `TensorSource`.
        """
        tensor_type = type_of_dtype(tensor.dtype)
        if tensor_type is None:
            raise GGUFError(f"{tensor.dtype} has no matching GGUF type: wrap the tensor in a TensorSource")
        return cls(tuple(tensor.shape), tensor_type, lambda: tensor)

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes as they lie in a little-endian file."""
        if self.read is not None:
            yield from self.read()
            return
        import torch

        tensor = self.load_checked().detach().cpu().contiguous()
        data: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
        yield (data if sys.byteorder == "little" else swap_bytes(data, self.type)).data

    def load_checked(self) -> torch.Tensor:
        """Load the tensor and check its dtype and shape.

        Raises:
            GGUFError: the loaded tensor does not match `type` and `shape`.
        """
        tensor = self.load()
        dtype, shape = self.dtype, storage_shape(self.shape, self.type)
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise GGUFError(
                f"{self.type.name} of shape {self.shape} must be {dtype} of shape {shape}, "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        return tensor


def check_tensor(name: str, shape: tuple[int, ...], tensor_type: TensorType) -> None:
    """Check that ggml supports a tensor of this name, shape and type.

    Args:
        name: the name in the file.
        shape: sizes in elements, in torch's order.
        tensor_type: how the elements are stored.

    Raises:
        GGUFError: the name is too long, there are too many dimensions, a size is zero, or a row is not a
            whole number of blocks.
    """
    name_bytes = len(encode_string(name)) - 8  # without the length before the name
    if name_bytes > MAX_NAME_BYTES:
        raise GGUFError(f"its name has {name_bytes} bytes, but ggml allows at most {MAX_NAME_BYTES}")
    if len(shape) > MAX_DIMS:
        raise GGUFError(f"it has {len(shape)} dimensions, but ggml allows at most {MAX_DIMS}")
    if min(shape, default=1) < 1:
        raise GGUFError(f"its shape {shape} has a size below 1")
    block_size, _ = BLOCK_SIZES[tensor_type]
    row = shape[-1] if shape else 1
    if row % block_size:
        raise GGUFError(f"its rows of {row} elements are not whole {tensor_type.name} blocks of {block_size}")


def storage_nbytes(shape: tuple[int, ...], tensor_type: TensorType) -> int:
    """Return the size of a tensor on disk in bytes, without padding."""
    block_size, type_size = BLOCK_SIZES[tensor_type]
    return prod(shape) // block_size * type_size


def storage_shape(shape: tuple[int, ...], tensor_type: TensorType) -> tuple[int, ...]:
    """Return the shape of the stored torch tensor; for packed types the last dimension counts bytes."""
    if tensor_type in PLAIN:
        return shape
    block_size, type_size = BLOCK_SIZES[tensor_type]
    return (*shape[:-1], shape[-1] // block_size * type_size)
