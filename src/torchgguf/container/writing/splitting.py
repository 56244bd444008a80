"""Split a GGUF file into several, and merge them again, as llama.cpp's gguf-split does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

from torchgguf.container.atomic import atomic_write_all, written_place
from torchgguf.container.errors import GGUFError
from torchgguf.container.layout import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, padded
from torchgguf.container.metadata import Metadata
from torchgguf.container.reading.reader import open_gguf
from torchgguf.container.reading.shards import COUNT, NUMBER, SPLIT_KEYS, TENSORS, member_names
from torchgguf.container.tensors import TensorInfo, TensorSource
from torchgguf.container.value_types import ValueType
from torchgguf.container.writing.writer import ByteProgress, Contents, explained_full_disk, write_gguf

_MOST_FILES = 2**16 - 1  # split.count is uint16; the names have five digits


def plan_split(
    tensors: Mapping[str, TensorInfo | TensorSource],
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    tensors_in_first: bool = True,
) -> list[list[str]]:
    """Distribute tensors to files, in their order. Exactly one of the two limits is required.

    Args:
        tensors: all tensors by name.
        max_bytes: limit for the tensors of a file, each padded to 32 bytes; metadata do not count.
        max_tensors: limit for the number of tensors of a file.
        tensors_in_first: whether the first file contains tensors besides the metadata.

    Returns:
        The names of tensors for each file.

    Raises:
        ValueError: the limits are invalid, a single tensor exceeds `max_bytes`, or more than 65,535 files
            would be needed.
    """
    limits = [limit for limit in (max_bytes, max_tensors) if limit is not None]
    if len(limits) != 1 or limits[0] < 1:
        raise ValueError("exactly one of max_bytes and max_tensors is required, and it must be at least 1")
    files: list[list[str]] = [[]] if tensors_in_first else [[], []]
    size = 0
    for index, (name, tensor) in enumerate(tensors.items()):
        nbytes = padded(tensor.nbytes, DEFAULT_ALIGNMENT)
        size += nbytes
        if max_bytes is not None and nbytes > max_bytes:
            raise ValueError(f"tensor {name!r} has {nbytes} bytes, but the limit of a file is {max_bytes}")
        full = index > 0 and index % max_tensors == 0 if max_tensors is not None else size > (max_bytes or 0)
        if full:
            files.append([])
            size = nbytes
        files[-1].append(name)
    if len(files) > _MOST_FILES:
        raise ValueError(f"{len(files)} files are needed, but a split model has at most {_MOST_FILES}")
    return files


def shard_paths(prefix: str | PathLike[str], count: int) -> list[Path]:
    """Return the paths of the files of a split model: `prefix-00001-of-00003.gguf` and so on.

    Args:
        prefix: the beginning of the paths; a `.gguf` at its end is ignored.
        count: the number of files.
    """
    prefix = Path(prefix)
    return [prefix.with_name(name) for name in member_names(prefix.name.removesuffix(".gguf"), count)]


def write_split(
    prefix: str | PathLike[str],
    metadata: Metadata,
    tensors: Mapping[str, TensorSource],
    files: Sequence[Iterable[str]],
    *,
    progress: ByteProgress | None = None,
) -> list[Path]:
    """Write a model as several files. All appear when the last is complete, or none does.

    The metadata go to the first file. Every file contains the alignment and the keys `split.*`.

    Args:
        prefix: the beginning of the paths, see `shard_paths`.
        metadata: of the model.
        tensors: of the model, by name.
        files: the names of tensors for each file, as from `plan_split`.
        progress: is called with `(done, total)` bytes of all files.

    Returns:
        The paths of the files.

    Raises:
        FileExistsError: one of the files exists already.
        GGUFError, OSError: as `write_gguf`.
    """
    paths = shard_paths(prefix, len(files))
    contents = []
    for index, names in enumerate(files):
        own = _without_split(metadata if index == 0 else _alignment_of(metadata))
        own.set(NUMBER, index, ValueType.UINT16)  # in the order of gguf-split
        own.set(TENSORS, len(tensors), ValueType.INT32)
        own.set(COUNT, len(files), ValueType.UINT16)
        contents.append(Contents(own, {name: tensors[name] for name in names}))
    total, done = sum(content.nbytes for content in contents), 0
    with explained_full_disk(paths[0], total), atomic_write_all(paths) as outputs:
        for content, output in zip(contents, outputs, strict=True):
            report = None if progress is None else partial(_tell, progress, done, total)
            content.write(output, report)
            done += content.nbytes
    return paths


def split_gguf(
    path: str | PathLike[str],
    prefix: str | PathLike[str],
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    tensors_in_first: bool = True,
    progress: ByteProgress | None = None,
) -> list[Path]:
    """Split the model of a GGUF file into several files.

    Args:
        path: the file; a model that is split already is split again.
        prefix: the beginning of the new paths, see `shard_paths`.
        max_bytes: as in `plan_split`.
        max_tensors: as in `plan_split`.
        tensors_in_first: as in `plan_split`.
        progress: is called with `(done, total)` bytes.

    Returns:
        The paths of the new files.

    Raises:
        ValueError: as `plan_split`.
        FileExistsError, GGUFError, OSError: as `write_split`.
    """
    with open_gguf(path, mmap=False) as file:
        files = plan_split(
            file.tensors, max_bytes=max_bytes, max_tensors=max_tensors, tensors_in_first=tensors_in_first
        )
        return write_split(prefix, file.metadata, file.sources(), files, progress=progress)


def merge_gguf(
    path: str | PathLike[str], out: str | PathLike[str], *, progress: ByteProgress | None = None
) -> None:
    """Merge the files of a split model into one file.

    Args:
        path: any of the files.
        out: the file to create or replace.
        progress: is called with `(done, total)` bytes.

    Raises:
        GGUFError: the model is not split, a part is missing, or as `write_gguf`.
        ValueError: `out` is one of the parts.
        OSError: as `write_gguf`.
    """
    with open_gguf(path, mmap=False) as file:
        if len(file.paths) == 1 and not file.metadata.get(COUNT):
            raise GGUFError("is a complete model in one file: there is nothing to merge", path=path)
        if written_place(out) in {written_place(part) for part in file.paths}:
            raise ValueError(f"{out} is one of the files to merge: name another output file")
        write_gguf(out, _without_split(file.metadata), file.sources(), progress=progress)


def _without_split(metadata: Metadata) -> Metadata:
    metadata = metadata.copy()
    for key in SPLIT_KEYS:
        metadata.pop(key, None)
    return metadata


def _alignment_of(metadata: Metadata) -> Metadata:
    return Metadata({key: metadata[key] for key in (ALIGNMENT_KEY,) if key in metadata})


def _tell(progress: ByteProgress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)
