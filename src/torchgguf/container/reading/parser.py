"""Parse the header of a GGUF file: metadata, and the positions of tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from os import PathLike
from typing import Literal

from typing_extensions import Buffer

from torchgguf.container.errors import GGUFError, brief
from torchgguf.container.foreign_types import explain_type, other_blocks
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
from torchgguf.container.reading.cursor import Cursor
from torchgguf.container.reading.lookalike import guess_format
from torchgguf.container.tensor_types import PLAIN, TENSOR_TYPES
from torchgguf.container.tensors import MAX_DIMS, MAX_NAME_BYTES, TensorInfo, check_tensor, storage_nbytes
from torchgguf.container.value_types import ValueType, type_name

VERSIONS = (2, 3)

_LEAST_PAIR = 8 + 1 + 4 + 1  # length and one byte of a key, type and one byte of a value
_LEAST_TENSOR = 8 + 4 + 4 + 8  # length of the name, number of dimensions, type, offset


@dataclass(frozen=True)
class GGUFHeader:
    """The contents of a GGUF file before its tensor data.

    Attributes:
        version: 2 or 3.
        byte_order: of the whole file.
        alignment: of tensors, in bytes.
        metadata: the key-value pairs.
        tensors: descriptions by name, in file order; offsets count from the beginning of the file.
        data_offset: the position of the tensor data, in bytes.
        misplaced: why the tensors do not follow each other as ggml demands, so that their bytes may be those
            of other blocks; None if they do.
    """

    version: int
    byte_order: Literal["little", "big"]
    alignment: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    data_offset: int
    misplaced: str | None = None


def parse_header(
    buffer: Buffer, *, path: str | PathLike[str] = "<bytes>", file_size: int | None = None
) -> GGUFHeader:
    """Parse the header at the beginning of a buffer.

    Memory for values is allocated only after the whole header has been walked and found valid.

    Args:
        buffer: the file, or any part of it that contains the header.
        path: the name of the file in messages.
        file_size: the size of the file in bytes, within which all tensors must end; by default not checked.

    Returns:
        The header.

    Raises:
        GGUFTruncatedError: the buffer ends before the header does.
        GGUFError: the header is invalid in another way.
    """
    cursor = Cursor(memoryview(buffer).cast("B"), path, file_size)
    version = _read_version(cursor)
    tensor_count = _read_count(cursor, "tensors", _LEAST_TENSOR)
    pair_count = _read_count(cursor, "metadata pairs", _LEAST_PAIR)
    pairs = _walk_pairs(cursor, pair_count)
    alignment = _read_alignment(cursor, pairs.get(ALIGNMENT_KEY))
    tensors = _read_tensors(cursor, tensor_count)
    data_offset = padded(cursor.position, alignment)
    for name, info in tensors.items():
        tensors[name] = TensorInfo(name, info.shape, info.type, data_offset + info.offset, info.nbytes)
    _check_layout(cursor, tensors.values(), alignment, file_size)
    metadata = Metadata()
    for key, (value_type, position) in pairs.items():
        metadata.set_unchecked(key, *cursor.value_at(position, value_type))
    byte_order: Literal["little", "big"] = "big" if cursor.order == ">" else "little"
    misplaced = _misplaced(tensors.values(), alignment, data_offset)
    return GGUFHeader(version, byte_order, alignment, metadata, tensors, data_offset, misplaced)


def _read_version(cursor: Cursor) -> int:
    magic = bytes(cursor.data[:4])
    if magic != MAGIC[: len(magic)]:
        guess = guess_format(bytes(cursor.data[:64]))
        reason = f"it begins with {magic!r}" if guess is None else f"it looks like {guess}"
        raise GGUFError(f"is not a GGUF file: {reason}", path=cursor.path)
    cursor.take(4, "the magic number")
    version: int = cursor.number("I", "the version")
    if version & 0xFFFF == 0:  # a small number in the other byte order
        cursor.order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in VERSIONS:
        advice = ": convert the model again" if version == 1 else ""
        raise cursor.error(f"GGUF version {version} is unsupported, only 2 and 3 are supported{advice}", 4)
    return version


def _read_count(cursor: Cursor, what: str, least: int) -> int:
    count: int = cursor.number("Q", f"the number of {what}")
    if count * least > len(cursor.data) - cursor.position:
        raise cursor.truncated(f"{count} {what} need at least {count * least}", count * least)
    if count > MAX_ENTRIES:
        reason = f"{count} {what} exceed the limit of {MAX_ENTRIES}"
        raise cursor.error(reason, cursor.position - 8)
    return count


def _walk_pairs(cursor: Cursor, count: int) -> dict[str, tuple[ValueType, int]]:
    """Return, for each key, the type of its value and the position of the value."""
    pairs: dict[str, tuple[ValueType, int]] = {}
    for index in range(count):
        start = cursor.position
        key = cursor.string(f"metadata key {index}", MAX_KEY_BYTES)
        if not key or key in pairs:
            reason = f"duplicate metadata key {brief(key)}" if key else f"metadata key {index} is empty"
            raise cursor.error(reason, start)
        type_id = cursor.number("I", f"the type of {brief(key)}")
        value_start = cursor.position
        cursor.skip_value(type_id, f"the value of {brief(key)}")
        pairs[key] = ValueType(type_id), value_start
    return pairs


def _read_alignment(cursor: Cursor, pair: tuple[ValueType, int] | None) -> int:
    if pair is None:
        return DEFAULT_ALIGNMENT
    value_type, position = pair
    if value_type is not ValueType.UINT32:
        raise cursor.error(f"{ALIGNMENT_KEY} must be uint32, got {type_name(value_type)}", position)
    alignment: int = struct.unpack_from(cursor.order + "I", cursor.data, position)[0]
    if not is_alignment(alignment):
        reason = f"{ALIGNMENT_KEY} must be a power of two up to {MAX_ALIGNMENT}, got {alignment}"
        raise cursor.error(reason, position)
    return alignment


def _read_tensors(cursor: Cursor, count: int) -> dict[str, TensorInfo]:
    """Return all tensors by name, with offsets from the beginning of the tensor data."""
    tensors: dict[str, TensorInfo] = {}
    for index in range(count):
        start = cursor.position
        name = cursor.string(f"the name of tensor {index}", MAX_NAME_BYTES)
        what = f"tensor {name!r}"
        if name in tensors:
            raise cursor.error(f"duplicate {what}", start)
        dims = cursor.number("I", what)
        if dims > MAX_DIMS:
            raise cursor.error(f"{what} has {dims} dimensions, but the limit is {MAX_DIMS}", start)
        *sizes, type_id, offset = cursor.numbers(f"{dims}QIQ", what)
        if type_id not in TENSOR_TYPES:
            raise cursor.error(f"{what} has the {explain_type(type_id)}", start)
        shape, tensor_type = tuple(reversed(sizes)), TENSOR_TYPES[type_id]
        try:
            check_tensor(name, shape, tensor_type)
        except GGUFError as error:
            raise cursor.error(f"{what}: {error}", start) from None
        tensors[name] = TensorInfo(name, shape, tensor_type, offset, storage_nbytes(shape, tensor_type))
    return tensors


def _check_layout(
    cursor: Cursor, tensors: Iterable[TensorInfo], alignment: int, file_size: int | None
) -> None:
    in_order = sorted(tensors, key=attrgetter("offset"))
    for info in in_order:
        end = info.offset + info.nbytes
        if info.offset % alignment:
            raise cursor.error(f"tensor {info.name!r} is not aligned to {alignment} bytes", info.offset)
        if file_size is not None and end > file_size:
            reason = f"tensor {info.name!r} ends at byte {end}, the file at {file_size}: is it incomplete?"
            raise cursor.error(reason, info.offset)
    for first, second in pairwise(in_order):
        if first.offset + first.nbytes > second.offset:
            reason = f"tensors {first.name!r} and {second.name!r} overlap"
            if first.type not in PLAIN:
                reason += f": {other_blocks(first.type)}"
            raise cursor.error(reason, second.offset)


def _misplaced(tensors: Iterable[TensorInfo], alignment: int, data_offset: int) -> str | None:
    """Return which tensor does not begin where the one before it ends, padded; None if all do."""
    expected, before = data_offset, None
    for info in tensors:
        if info.offset != expected:
            reason = f"tensor {info.name!r} must begin at byte {expected}, but begins at {info.offset}"
            if before is not None and info.offset > expected:
                reason += f", as {before.name!r} were not {before.type.name}: {other_blocks(before.type)}"
            return reason
        expected, before = expected + padded(info.nbytes, alignment), info
    return None
