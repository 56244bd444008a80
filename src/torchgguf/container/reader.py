"""A GGUF file open for reading: metadata as a dict, tensors by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Self

from torchgguf.container.errors import GGUFError
from torchgguf.container.mapping import Shard, open_shard
from torchgguf.container.shards import Opener, join, open_shards
from torchgguf.container.tensors import TensorInfo, TensorSource

if TYPE_CHECKING:
    import torch


def open_gguf(path: str | PathLike[str]) -> GGUFFile:
    """Open a GGUF file, version 2 or 3, of either byte order; of a split model, any of its files.

    Reads the header only: tensors are mapped, and read from the disk as they are used. Raises GGUFError for
    a file that is not sound or not whole, and OSError for one that is missing or may not be read.
    """
    return GGUFFile(path)


class GGUFFile:
    """An open GGUF file, or the files of a split model joined. Made by `open_gguf`.

    `paths`, `size`: the files, and how many bytes they have in all.
    `metadata`: the key-value pairs; where files were joined, of all of them and without `split.*`.
    `tensors`: name -> TensorInfo, in the file's order.
    `file[name]`: the torch tensor, of `TensorInfo.dtype` and `TensorInfo.storage_shape`: packed types are
    uint8 `(*shape[:-1], bytes_per_row)`, all others have their own dtype and shape.

    A tensor is a view of the file, mapped privately: writing into it changes this process's copy only, and
    it stays valid when the GGUFFile is closed or gone. Only where the file has the other byte order (or
    aligns its tensors to less than their elements) is it a copy, in the machine's order.
    """

    def __init__(self, path: str | PathLike[str], opener: Opener = open_shard) -> None:
        self._shards = open_shards(path, opener)
        self.metadata, self.tensors = join(self._shards)
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
        """The tensors as `write_gguf` takes them, each to be read when its turn comes.

        To copy them as they are takes no torch. `passing`: each leaves memory when the next one is loaded.
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
        """Let go of the memory that a tensor takes: what has been looked at stays in it until then.

        The tensor stays valid, and is read from the disk anew; what was written into it is lost.
        """
        info = self.tensors[name]
        self._shard_of(info).release(info)

    def _shard_of(self, info: TensorInfo) -> Shard:
        if not self._shards:
            raise GGUFError("the file has been closed", path=self.paths[info.shard])
        return self._shards[info.shard]

    def close(self) -> None:
        """Let go of the file. It stays mapped for as long as tensors taken from it live."""
        self._shards = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
