"""Write a GGUF file: version 3, little-endian, tensor by tensor."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from torchgguf.container.atomic import atomic_write
from torchgguf.container.encoder import encode_string, encode_value, type_id
from torchgguf.container.errors import GGUFError, brief
from torchgguf.container.layout import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_ALIGNMENT,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    is_alignment,
    padded,
)
from torchgguf.container.metadata import Metadata
from torchgguf.container.tensor_types import TensorType
from torchgguf.container.tensors import TensorSource, check_tensor
from torchgguf.container.value_types import ValueType

if TYPE_CHECKING:
    import torch

    Tensor: TypeAlias = torch.Tensor | TensorSource
    Tensors: TypeAlias = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]

ByteProgress: TypeAlias = Callable[[int, int], None]

_VERSION = 3
_CHUNK = 1 << 24  # bytes between two calls of `progress`, and between two chances to interrupt
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_gguf(
    path: str | PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Tensors,
    *,
    alignment: int | None = None,
    progress: ByteProgress | None = None,
) -> None:
    """Write a GGUF file. It replaces an existing one, even an open one, at the moment it is complete.

    After any exception or crash the old file is unchanged, and no temporary file is left.

    Args:
        path: the file to create or replace.
        metadata: a `Metadata` keeps its types; a plain dict gets the types that `Metadata` infers.
        tensors: by name: torch tensors whose dtype GGUF has, a `TensorSource` for a packed or lazily loaded
            tensor. One tensor is in memory at a time.
        alignment: of tensors in bytes, a power of two up to 2 MiB; by default `general.alignment`, or else
            32.
        progress: is called with `(done, total)` bytes.

    Raises:
        GGUFError: GGUF does not support the contents, a tensor cannot be loaded, or the disk is full.
        OSError: the system refuses.
    """
    contents = Contents(metadata, tensors, alignment)
    with explained_full_disk(path, contents.nbytes), atomic_write(path) as file:
        contents.write(file, progress)


class Contents:
    """The checked contents of a new file. Arguments and errors are those of `write_gguf`.

    Attributes:
        nbytes: the size of the file in bytes.
    """

    def __init__(self, metadata: Mapping[str, Any], tensors: Tensors, alignment: int | None = None) -> None:
        metadata, self._alignment = _with_alignment(metadata, alignment)
        self._sources = _sources(tensors)
        places, self._end = [], 0
        for name, source in self._sources.items():
            places.append((name, source.shape, source.type, self._end))
            self._end += padded(source.nbytes, self._alignment)
        self._header = encode_header(metadata, places)
        self.nbytes = padded(len(self._header), self._alignment) + self._end

    def write(self, file: FileIO, progress: ByteProgress | None = None) -> None:
        """Write the contents to an empty file.

        Raises:
            GGUFError: a tensor does not match its source, or its own file is not readable any more.
            OSError: the system refuses, for example because the disk is full.
        """
        out = _Output(file, self.nbytes, progress)
        out.write(memoryview(self._header))
        for name, source in self._sources.items():
            out.pad(self._alignment)
            try:
                for piece in source.pieces():
                    out.write(piece)
            except GGUFError as error:
                raise GGUFError(f"tensor {name!r}: {error}") from None
            except OSError as error:
                if error.errno != errno.EFAULT:
                    raise
                # The kernel reports this if the source mapping lies beyond the end of its file.
                raise GGUFError(f"tensor {name!r}: its file is not readable any more") from None
        out.finish()


@contextmanager
def explained_full_disk(path: str | PathLike[str], nbytes: int) -> Iterator[None]:
    """Replace the OSError of a full disk by a GGUFError that states the `nbytes` of the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        reason = f"{error.strerror}, it needs {nbytes} bytes; nothing was changed"
        raise GGUFError(f"writing failed: {reason}", path=path) from None


def encode_header(
    metadata: Metadata,
    tensors: Iterable[tuple[str, tuple[int, ...], TensorType, int]],
    version: int = _VERSION,
) -> bytes:
    """Encode everything before the tensor data, without padding.

    Args:
        metadata: the key-value pairs.
        tensors: for each its name, shape in torch's order, type, and offset from the beginning of the tensor
            data in bytes.
        version: of the format.

    Returns:
        The bytes of the header.

    Raises:
        GGUFError: a key or a string is invalid, or there are more keys or tensors than files are read with.
    """
    tensors = list(tensors)
    for count, what in ((len(metadata), "metadata keys"), (len(tensors), "tensors")):
        if count > MAX_ENTRIES:
            raise GGUFError(f"{count} {what} exceed the limit of {MAX_ENTRIES}")
    parts = [MAGIC, struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [_encode_key(key), struct.pack("<I", type_id(metadata.types[key]))]
            parts.append(encode_value(value, metadata.types[key]))
        except GGUFError as error:
            raise GGUFError(f"metadata key {brief(key)}: {error}") from None
    for name, shape, tensor_type, offset in tensors:
        layout = f"<I{len(shape)}QIQ"
        parts += [encode_string(name), struct.pack(layout, len(shape), *shape[::-1], tensor_type, offset)]
    return b"".join(parts)


class _Output:
    def __init__(self, file: FileIO, total: int, progress: ByteProgress | None) -> None:
        self._file, self._total, self._progress = file, total, progress

    def write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data[:_CHUNK]) :]
            if self._progress is not None:
                self._progress(self._file.tell(), self._total)

    def pad(self, alignment: int) -> None:
        self._file.seek(padded(self._file.tell(), alignment))  # skipped bytes are zeros

    def finish(self) -> None:
        self._file.truncate(self._total)  # to the end of the last padding
        if self._progress is not None:
            self._progress(self._total, self._total)


def _with_alignment(metadata: Mapping[str, Any], alignment: int | None) -> tuple[Metadata, int]:
    metadata = metadata if isinstance(metadata, Metadata) else Metadata(metadata)
    stated = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if alignment is not None and alignment != stated:
        metadata = metadata.copy()
        metadata.set(ALIGNMENT_KEY, alignment, ValueType.UINT32)
    chosen: Any = stated if alignment is None else alignment
    value_type = metadata.types.get(ALIGNMENT_KEY, ValueType.UINT32)
    if value_type is not ValueType.UINT32 or not is_alignment(chosen):
        limits = f"a power of two up to {MAX_ALIGNMENT} of type uint32"
        raise GGUFError(f"{ALIGNMENT_KEY} must be {limits}, got {chosen!r}")
    return metadata, chosen


def _sources(tensors: Tensors) -> dict[str, TensorSource]:
    sources: dict[str, TensorSource] = {}
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        try:
            source = tensor if isinstance(tensor, TensorSource) else TensorSource.of(tensor)
            check_tensor(name, source.shape, source.type)
        except GGUFError as error:
            raise GGUFError(f"tensor {name!r}: {error}") from None
        if name in sources:
            raise GGUFError(f"duplicate tensor {name!r}")
        sources[name] = source
    return sources


def _encode_key(key: str) -> bytes:
    encoded = encode_string(key)
    if not 0 < len(encoded) - 8 <= MAX_KEY_BYTES:
        raise GGUFError(f"a key must have 1 to {MAX_KEY_BYTES} bytes, got {len(encoded) - 8}")
    return encoded
