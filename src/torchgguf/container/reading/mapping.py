"""Map one GGUF file into memory; its tensors are views of the mapping."""

from __future__ import annotations

import mmap
import os
import stat
import sys
import warnings
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchgguf.container.byte_order import swap_bytes
from torchgguf.container.errors import GGUFError, GGUFWarning
from torchgguf.container.layout import padded
from torchgguf.container.reading.parser import GGUFHeader, parse_header
from torchgguf.container.tensors import TensorInfo, TensorSource

if TYPE_CHECKING:
    import torch

# Python has a name for this flag since 3.13. Without the flag Linux reserves memory for a writable private
# mapping, and refuses files that are larger than the memory of the machine.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class Shard(NamedTuple):
    """One open file.

    Attributes:
        path: the file.
        header: its parsed header.
        size: the size of the file in bytes.
        mapping: the private mapping of the file, in which only this process sees changes; None for a remote
            file of which only the header was fetched.
    """

    path: Path
    header: GGUFHeader
    size: int
    mapping: mmap.mmap | None

    def tensor(self, info: TensorInfo) -> torch.Tensor:
        """Return a tensor as a view of the mapping, which the view keeps alive.

        It is a copy if the file has the other byte order, or if the tensor is not aligned to its elements.

        Raises:
            GGUFError: only the header of the file was fetched.
        """
        import torch

        mapping = self._mapped()
        swapped = self.header.byte_order != sys.byteorder
        if not swapped and info.offset % info.dtype.itemsize == 0:
            count = info.nbytes // info.dtype.itemsize
            flat = torch.frombuffer(mapping, dtype=info.dtype, count=count, offset=info.offset)
        else:
            data = np.frombuffer(mapping, np.uint8, info.nbytes, info.offset)
            data = swap_bytes(data, info.type) if swapped else data.copy()
            flat = torch.from_numpy(data).view(info.dtype)
        return flat.view(info.storage_shape)

    def source(self, info: TensorInfo) -> TensorSource:
        """Return a tensor in the form that `write_gguf` copies without torch."""

        def read() -> memoryview:
            flat = np.frombuffer(self._mapped(), np.uint8, info.nbytes, info.offset)
            return (flat if self.header.byte_order == "little" else swap_bytes(flat, info.type)).data

        return TensorSource(info.shape, info.type, partial(self.tensor, info), read)

    def release(self, info: TensorInfo) -> None:
        """Release the memory pages of a tensor; the next access reads them from the disk again."""
        start = info.offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapped().madvise(mmap.MADV_DONTNEED, start, info.offset + info.nbytes - start)

    def _mapped(self) -> mmap.mmap:
        if self.mapping is None:
            raise GGUFError(
                "only the header was fetched: download the file to use its tensors", path=self.path
            )
        return self.mapping


def open_shard(path: str | PathLike[str]) -> Shard:
    """Map one file and parse its header.

    Raises:
        GGUFError: it is not a regular file, or its header is invalid.
        OSError: the file is missing or not readable.
    """
    path = Path(path)
    status = path.stat()  # before open(), which blocks on a pipe
    if stat.S_ISDIR(status.st_mode):
        raise GGUFError("is a folder: name the .gguf file in it", path=path)
    if not stat.S_ISREG(status.st_mode):
        raise GGUFError("is not a regular file: it must be one to be mapped", path=path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise GGUFError("is empty", path=path)
        flags, access = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        mapping = mmap.mmap(file.fileno(), 0, flags=flags, prot=access)
    header = parse_header(mapping, path=path, file_size=len(mapping))
    _warn_of_unused_bytes(path, header, len(mapping))
    return Shard(path, header, len(mapping), mapping)


def _warn_of_unused_bytes(path: Path, header: GGUFHeader, file_size: int) -> None:
    used = sum(padded(info.nbytes, header.alignment) for info in header.tensors.values())
    unused = file_size - header.data_offset - used
    if unused > 0:
        message = f"{path}: {unused} bytes belong to no tensor; writing the file again drops them"
        warnings.warn(message, GGUFWarning, stacklevel=6)
