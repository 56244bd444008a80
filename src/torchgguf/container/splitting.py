"""One GGUF file made several, and several made one, as llama.cpp's gguf-split does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

from torchgguf.container.atomic import atomic_write_all
from torchgguf.container.errors import GGUFError
from torchgguf.container.metadata import Metadata
from torchgguf.container.parser import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, padded
from torchgguf.container.reader import open_gguf
from torchgguf.container.shards import COUNT, NUMBER, SPLIT_KEYS, TENSORS, member_names
from torchgguf.container.tensors import TensorInfo, TensorSource
from torchgguf.container.value_types import ValueType
from torchgguf.container.writer import Contents, Progress, explained_full_disk, write_gguf

_MOST_FILES = 2**16 - 1  # split.count is uint16; the names have five digits


def plan_split(
    tensors: Mapping[str, TensorInfo | TensorSource],
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    tensors_in_first: bool = True,
) -> list[list[str]]:
    """Say which tensors, in their order, go to which file.

    Of the two limits one is to be given: the bytes of a file's tensors, each padded to 32 bytes and the
    metadata not counted, or their number. Unless `tensors_in_first`, the first file has metadata alone.

    Raises:
        ValueError: a tensor alone is beyond `max_bytes`, or it takes more files than there can be.
    """
    limits = [limit for limit in (max_bytes, max_tensors) if limit is not None]
    if len(limits) != 1 or limits[0] < 1:
        raise ValueError("say either how many bytes or how many tensors a file may hold, one or more")
    files: list[list[str]] = [[]] if tensors_in_first else [[], []]
    size = 0
    for index, (name, tensor) in enumerate(tensors.items()):
        nbytes = padded(tensor.nbytes, DEFAULT_ALIGNMENT)
        size += nbytes
        if max_bytes is not None and nbytes > max_bytes:
            raise ValueError(f"tensor {name!r} has {nbytes} bytes, more than the {max_bytes} a file may hold")
        full = index > 0 and index % max_tensors == 0 if max_tensors is not None else size > (max_bytes or 0)
        if full:
            files.append([])
            size = nbytes
        files[-1].append(name)
    if len(files) > _MOST_FILES:
        raise ValueError(f"that takes {len(files)} files, and a split model has {_MOST_FILES} at most")
    return files


def shard_paths(prefix: str | PathLike[str], count: int) -> list[Path]:
    """The paths of the files that a model is split into: `prefix-00001-of-00003.gguf` and so on.

    A `.gguf` at the end of the prefix is none of it.
    """
    prefix = Path(prefix)
    return [prefix.with_name(name) for name in member_names(prefix.name.removesuffix(".gguf"), count)]


def write_split(
    prefix: str | PathLike[str],
    metadata: Metadata,
    tensors: Mapping[str, TensorSource],
    files: Sequence[Iterable[str]],
    *,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a model as several files, which hold the tensors so named, and return their paths.

    Metadata go to the first, and to all of them what a reader must know: the alignment, and its place. All
    files appear when the last is complete, or none does.

    Raises:
        FileExistsError: one of them is there already.
        GGUFError, OSError: as `write_gguf`.
    """
    paths = shard_paths(prefix, len(files))
    contents = []
    for index, names in enumerate(files):
        own = _without_split(metadata if index == 0 else _alignment_of(metadata))
        own.set(NUMBER, index, ValueType.UINT16)  # in the order that gguf-split comes to write them
        own.set(TENSORS, len(tensors), ValueType.INT32)
        own.set(COUNT, len(files), ValueType.UINT16)
        contents.append(Contents(own, {name: tensors[name] for name in names}))
    total, done = sum(content.nbytes for content in contents), 0
    with explained_full_disk(paths[0], total), atomic_write_all(paths) as outputs:
        for content, output in zip(contents, outputs, strict=True):
            told = None if progress is None else partial(_tell, progress, done, total)
            content.write(output, told)
            done += content.nbytes
    return paths


def split_gguf(
    path: str | PathLike[str],
    prefix: str | PathLike[str],
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    tensors_in_first: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the model in a GGUF file as several files, and return their paths.

    The limits are those of `plan_split`, the errors those of it and of `write_split`. A model that is split
    already is split anew.
    """
    with open_gguf(path) as file:
        files = plan_split(
            file.tensors, max_bytes=max_bytes, max_tensors=max_tensors, tensors_in_first=tensors_in_first
        )
        return write_split(prefix, file.metadata, file.sources(), files, progress=progress)


def merge_gguf(
    path: str | PathLike[str], out: str | PathLike[str], *, progress: Progress | None = None
) -> None:
    """Write the model that the file at `path` is a part of as one file.

    Raises:
        GGUFError: it is no part of a split model, or not all parts are there.
        ValueError: `out` is one of the parts.
        GGUFError, OSError: as `write_gguf`.
    """
    with open_gguf(path) as file:
        if len(file.paths) == 1 and not file.metadata.get(COUNT):
            raise GGUFError("is a whole model: there is nothing to merge", path=path)
        if Path(out).resolve() in {part.resolve() for part in file.paths}:
            raise ValueError(f"{out} is one of the files to merge: name another for the whole")
        write_gguf(out, _without_split(file.metadata), file.sources(), progress=progress)


def _without_split(metadata: Metadata) -> Metadata:
    metadata = metadata.copy()
    for key in SPLIT_KEYS:
        metadata.pop(key, None)
    return metadata


def _alignment_of(metadata: Metadata) -> Metadata:
    return Metadata({key: metadata[key] for key in (ALIGNMENT_KEY,) if key in metadata})


def _tell(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)
