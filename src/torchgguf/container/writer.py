"""Write a GGUF file: version 3, little-endian, tensor by tensor."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from io import FileIO
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchgguf.container.atomic import atomic_write
from torchgguf.container.byte_order import swap_bytes
from torchgguf.container.encoder import encode_string, encode_value, type_id
from torchgguf.container.errors import GGUFError, brief
from torchgguf.container.metadata import Metadata
from torchgguf.container.parser import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_KEY_BYTES,
    is_alignment,
    padded,
)
from torchgguf.container.tensors import TensorSource, check_tensor
from torchgguf.container.value_types import ValueType

if TYPE_CHECKING:
    import torch

_VERSION = 3
_CHUNK = 1 << 24  # bytes written between two calls of `progress`, and between two chances to interrupt
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_gguf(
    path: str | PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor | TensorSource] | Iterable[tuple[str, torch.Tensor | TensorSource]],
    *,
    alignment: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a GGUF file, or replace one, even one that is open: it appears at once, when it is complete.

    `metadata`: a Metadata is written type by type as it was read; a plain dict gets the types that
    `Metadata` infers. `tensors`: torch tensors of a type that GGUF has too, and TensorSources for packed and
    for lazily loaded ones; one is in memory at a time. `alignment`: of the tensors in bytes, a power of two;
    by default what `general.alignment` says, else 32. `progress(done, total)` is told of the bytes written.

    Raises GGUFError for what GGUF cannot hold and for a full disk, OSError for what else the system refuses.
    Then, as after any exception or a crash, the old file is as it was and nothing lies beside it.
    """
    metadata, alignment = _with_alignment(metadata, alignment)
    sources = _sources(tensors)
    header = _encode_header(metadata, sources, alignment)
    total = padded(len(header), alignment) + sum(padded(s.nbytes, alignment) for s in sources.values())
    try:
        with atomic_write(path) as file:
            out = _Output(file, total, progress)
            out.write(memoryview(header))
            for name, source in sources.items():
                out.pad(alignment)
                out.write(_load(name, source))
            out.finish()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        reason = f"{error.strerror} for its {total} bytes; nothing was changed"
        raise GGUFError(f"cannot be written: {reason}", path=path) from None


class _Output:
    def __init__(self, file: FileIO, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._file, self._total, self._progress = file, total, progress

    def write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data[:_CHUNK]) :]
            if self._progress is not None:
                self._progress(self._file.tell(), self._total)

    def pad(self, alignment: int) -> None:
        self._file.seek(padded(self._file.tell(), alignment))  # what is skipped reads as zeros

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
        raise GGUFError(f"{ALIGNMENT_KEY} must be a power of two of type uint32, not {chosen!r}")
    return metadata, chosen


def _sources(
    tensors: Mapping[str, torch.Tensor | TensorSource] | Iterable[tuple[str, torch.Tensor | TensorSource]],
) -> dict[str, TensorSource]:
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


def _encode_header(metadata: Metadata, sources: Mapping[str, TensorSource], alignment: int) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", _VERSION, len(sources), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [_encode_key(key), struct.pack("<I", type_id(metadata.types[key]))]
            parts.append(encode_value(value, metadata.types[key]))
        except GGUFError as error:
            raise GGUFError(f"metadata key {brief(key)}: {error}") from None
    offset = 0
    for name, source in sources.items():
        dims = source.shape[::-1]
        layout = f"<I{len(dims)}QIQ"
        parts += [encode_string(name), struct.pack(layout, len(dims), *dims, source.type, offset)]
        offset = padded(offset + source.nbytes, alignment)
    return b"".join(parts)


def _encode_key(key: str) -> bytes:
    encoded = encode_string(key)
    if not 0 < len(encoded) - 8 <= MAX_KEY_BYTES:
        raise GGUFError(f"a key must have 1 to {MAX_KEY_BYTES} bytes, not {len(encoded) - 8}")
    return encoded


def _load(name: str, source: TensorSource) -> memoryview:
    import torch

    try:
        tensor = source.load_checked()
    except GGUFError as error:
        raise GGUFError(f"tensor {name!r}: {error}") from None
    data: npt.NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return (data if sys.byteorder == "little" else swap_bytes(data, source.type)).data
