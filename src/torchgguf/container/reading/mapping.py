"""Open one GGUF file; its tensors are views of a mapping of the file, or are read from it one by one."""

from __future__ import annotations

import mmap
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from io import FileIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from torchgguf.container.byte_order import swap_bytes
from torchgguf.container.errors import GGUFError, GGUFWarning
from torchgguf.container.layout import padded
from torchgguf.container.reading.header import read_header
from torchgguf.container.reading.parser import GGUFHeader
from torchgguf.container.system import checked_path
from torchgguf.container.tensor_types import BLOCK_SIZES
from torchgguf.container.tensors import TensorInfo, TensorSource

if TYPE_CHECKING:
    import torch

Bytes: TypeAlias = npt.NDArray[np.uint8]

# Python has a name for this flag since 3.13. Without the flag Linux reserves memory for a writable private
# mapping, and refuses files that are larger than the memory of the machine.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_PIECE = 1 << 24  # bytes of a tensor that are copied at once


class Storage(Protocol):
    """The bytes of an open file."""

    def bytes(self, start: int, count: int) -> Bytes:
        """Return bytes of the file, which may be written to without a change of the file."""

    def release(self, start: int, count: int) -> None:
        """Release the memory of bytes that were returned, where they stay readable without it."""


class MappedStorage:
    """A private mapping, in which only this process sees changes. Its views keep it alive."""

    def __init__(self, descriptor: int, size: int) -> None:
        flags, access = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        self._mapping = mmap.mmap(descriptor, size, flags=flags, prot=access)

    def bytes(self, start: int, count: int) -> Bytes:
        """Return a view of the mapping."""
        return np.frombuffer(self._mapping, np.uint8, count, start)

    def release(self, start: int, count: int) -> None:
        """Release pages; the next access reads them from the disk again."""
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapping.madvise(mmap.MADV_DONTNEED, first, start + count - first)


class FileStorage:
    """An open file, whose bytes are read when they are asked for. It may become shorter at any time."""

    def __init__(self, file: FileIO, path: Path) -> None:
        self._file, self._path = file, path

    def __del__(self) -> None:
        self._file.close()  # the sources of tensors may outlive the GGUFFile

    def bytes(self, start: int, count: int) -> Bytes:
        """Return a copy.

        Raises:
            GGUFError: the file has become shorter.
        """
        data = np.empty(count, np.uint8)
        view, done = data.data, 0
        while done < count:
            if not (read := os.preadv(self._file.fileno(), [view[done:]], start + done)):
                reason = f"ends here, but was longer when it was opened: {count - done} bytes are missing"
                raise GGUFError(reason, path=self._path, offset=start + done)
            done += read
        return data

    def release(self, start: int, count: int) -> None:
        """Do nothing: the copies belong to their users."""


class Shard(NamedTuple):
    """One open file.

    Attributes:
        path: the file.
        header: its parsed header.
        size: the size of the file in bytes.
        storage: the bytes of the file; None for a remote file of which only the header was fetched.
    """

    path: Path
    header: GGUFHeader
    size: int
    storage: Storage | None

    def tensor(self, info: TensorInfo) -> torch.Tensor:
        """Return a tensor: a view of the mapping, or a copy.

        It is always a copy if the file has the other byte order, or if the tensor is not aligned to its
        elements.

        Raises:
            GGUFError: only the header of the file was fetched, the file has become shorter, or its tensors
                do not follow each other.
        """
        import torch

        self.check_places()
        data = self._stored().bytes(info.offset, info.nbytes)
        if self.header.byte_order != sys.byteorder:
            data = swap_bytes(data, info.type)
        elif info.offset % info.dtype.itemsize:
            data = data.copy()
        return torch.from_numpy(data).view(info.dtype).view(info.storage_shape)

    def source(self, info: TensorInfo) -> TensorSource:
        """Return a tensor in the form that `write_gguf` copies without torch.

        Raises:
            GGUFError: the tensors of the file do not follow each other.
        """
        self.check_places()
        return TensorSource(info.shape, info.type, partial(self.tensor, info), partial(self._pieces, info))

    def _pieces(self, info: TensorInfo) -> Iterator[memoryview]:
        _, block = BLOCK_SIZES[info.type]
        step = max(_PIECE // block, 1) * block
        for start in range(0, info.nbytes, step):
            data = self._stored().bytes(info.offset + start, min(step, info.nbytes - start))
            yield (data if self.header.byte_order == "little" else swap_bytes(data, info.type)).data

    def release(self, info: TensorInfo) -> None:
        """Release the memory pages of a tensor; the next access reads them from the disk again."""
        self._stored().release(info.offset, info.nbytes)

    def check_places(self) -> None:
        """Check that the tensors lie where ggml looks for them.

        Raises:
            GGUFError: they do not. Their bytes may be blocks of another program.
        """
        if self.header.misplaced is not None:
            raise GGUFError(self.header.misplaced, path=self.path)

    def _stored(self) -> Storage:
        if self.storage is None:
            raise GGUFError(
                "only the header was fetched: download the file to use its tensors", path=self.path
            )
        return self.storage


def open_shard(path: str | PathLike[str], mmap: bool = True) -> Shard:
    """Open one file and parse its header, which is read, not mapped.

    Args:
        path: the file.
        mmap: map the file for its tensors; otherwise they are read, and the file stays open.

    Raises:
        GGUFError: it is not a regular file, or its header is invalid.
        OSError: the file is missing or not readable.
    """
    path = checked_path(path)
    status = path.stat()  # before open(), which blocks on a pipe
    if stat.S_ISDIR(status.st_mode):
        raise GGUFError("is a folder: name the .gguf file in it", path=path)
    if not stat.S_ISREG(status.st_mode):
        raise GGUFError("is not a regular file: it must be one to be mapped", path=path)
    file = FileIO(path, "rb")
    try:
        header, size = read_header(file.fileno(), path)
        storage = MappedStorage(file.fileno(), size) if mmap else FileStorage(file, path)
    except BaseException:
        file.close()
        raise
    if mmap:
        file.close()
    _warn_of_bytes(path, header, size)
    return Shard(path, header, size, storage)


def _warn_of_bytes(path: Path, header: GGUFHeader, file_size: int) -> None:
    """Warn of bytes that are not where they should be: the metadata are readable all the same."""
    used = sum(padded(info.nbytes, header.alignment) for info in header.tensors.values())
    unused = file_size - header.data_offset - used
    if header.misplaced is not None:
        message = f"{path}: {header.misplaced}; only the metadata are usable"
    elif unused > 0:
        message = f"{path}: {unused} bytes belong to no tensor; writing the file again drops them"
    else:
        return
    warnings.warn(message, GGUFWarning, stacklevel=6)
