"""Open a GGUF file for reading: metadata as a dict, tensors by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Self

from torchgguf.container.errors import GGUFError
from torchgguf.container.reading.mapping import Shard, open_shard
from torchgguf.container.reading.shards import Opener, join_shards, open_shards
from torchgguf.container.tensors import TensorInfo, TensorSource

if TYPE_CHECKING:
    import torch


def open_gguf(path: str | PathLike[str], *, mmap: bool = True) -> GGUFFile:
    """Open a GGUF file of version 2 or 3, of either byte order.

    This reads the header only, as it was at one moment, even if another process edits the metadata.

    Args:
        path: the file; for a split model, any of its files.
        mmap: map tensors into memory, so that the system reads them from the disk when they are used. Such a
            file must not become shorter meanwhile: the system ends a process that uses a page beyond its
            end (SIGBUS). With False each tensor is read into memory of its own; if the file has become
            shorter, that raises a GGUFError.

    Returns:
        The open file, also usable as a context manager.

    Raises:
        GGUFError: the file is invalid or incomplete.
        OSError: the file is missing or not readable.
    """
    return GGUFFile(path, partial(open_shard, mmap=mmap))


class GGUFFile:
    """An open GGUF file, or the joined files of a split model. `open_gguf` creates it.

    `file[name]` is a torch tensor of `TensorInfo.dtype` and `TensorInfo.storage_shape`: packed types are
    uint8 `(*shape[:-1], bytes_per_row)`, plain types have their own dtype and shape.

    A tensor is a view of a private mapping of the file: writing into it changes the copy of this process
    only, and the tensor stays valid after the GGUFFile is closed or deleted. If the file is not mapped, has
    the other byte order, or a tensor is not aligned to its elements, the tensor is a copy in the byte order
    of the machine.

    Tensors must follow each other as ggml demands: in the order of the header, without gaps but the padding
    to the alignment. If they do not, the metadata are readable, and using a tensor raises a GGUFError.

    Args:
        path: the file; for a split model, any of its files.
        opener: opens each file.

    Attributes:
        paths: the files.
        size: their size in bytes, in total.
        metadata: the key-value pairs; of a split model those of all files, without `split.*`.
        tensors: a `TensorInfo` by name, in file order.
        version: the version of the format, of the first file.
        byte_order: `"little"` or `"big"`, of the first file.
        alignment: of tensors in bytes, in the first file.
    """

    def __init__(self, path: str | PathLike[str], opener: Opener = open_shard) -> None:
        self._shards = open_shards(path, opener)
        self.metadata, self.tensors = join_shards(self._shards)
        self.paths = tuple(shard.path for shard in self._shards)
        self.size = sum(shard.size for shard in self._shards)
        self._passing: str | None = None  # the tensor that leaves memory when the next one is loaded
        header = self._shards[0].header
        self.version, self.byte_order, self.alignment = header.version, header.byte_order, header.alignment

    def __getitem__(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        return self._shard_of(info).tensor(info)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def sources(self, passing: bool = False) -> dict[str, TensorSource]:
        """Return all tensors in the form that `write_gguf` accepts; each is loaded when it is written.

        Tensors that are copied unchanged need no torch, and are copied in pieces.

        Args:
            passing: each tensor leaves memory when the next one is loaded.
        """
        sources = {name: self._shard_of(info).source(info) for name, info in self.tensors.items()}
        if not passing:
            return sources
        return {
            name: replace(source, load=partial(self._pass, name), read=None)
            for name, source in sources.items()
        }

    def _pass(self, name: str) -> torch.Tensor:
        if self._passing is not None:
            self.release(self._passing)
        self._passing = name
        return self[name]

    def release(self, name: str) -> None:
        """Release the memory of a tensor; pages that were read stay in memory until then.

        The tensor stays valid. The next access reads it from the disk again, and changes to it are lost.
        """
        info = self.tensors[name]
        self._shard_of(info).release(info)

    def _shard_of(self, info: TensorInfo) -> Shard:
        if not self._shards:
            raise GGUFError("the file is closed", path=self.paths[info.shard])
        return self._shards[info.shard]

    def close(self) -> None:
        """Close the file. Its mapping stays until the last tensor from it is deleted."""
        self._shards = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
