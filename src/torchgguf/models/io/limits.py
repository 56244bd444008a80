"""Look at the files of a checkpoint before a library reads them: what they contain must be in proportion.

The limits are far above the files of any model here. Within them, opening a file takes less than a second,
and less than 50 MB beyond the file.
"""

import json
import struct
from pathlib import Path
from typing import Any

from torchgguf.container.errors import brief

INDEX = ".index.json"  # the end of the name of an index, after the name of the one file that it replaces

_MAX_TEXT = 1 << 24  # bytes of a JSON file
_MAX_VALUES = 300_000  # of a JSON file: an empty list of two bytes takes 64 bytes of memory
_MAX_DEPTH = 64
_MAX_TENSORS = 40 << 10  # in all files; Qwen3-235B has 36,945, three for each expert
_MAX_HEADER = 6 << 20  # bytes of the header of a .safetensors file: 150 for each tensor
_MAX_PICKLE = 1 << 20  # bytes of the pickle in a .bin file, without its tensors: 150 for each tensor
_MAX_DIRECTORY = 6 << 20  # bytes of the list of files in a .bin file
_STORED = 0  # the method of a zip archive without compression

# Records of zip archives (APPNOTE.TXT of PKWARE): the end of the list of files, in two sizes, and one file.
_END, _END_SIZE = b"PK\5\6", 22
_LOCATOR, _LOCATOR_SIZE = b"PK\6\7", 20
_LARGE_END, _LARGE_END_SIZE = b"PK\6\6", 56
_FILE, _FILE_SIZE = b"PK\1\2", 46


class CheckpointError(ValueError):
    """A checkpoint is broken, or does not match its model. The message is one line and names the reason.

    A missing file is a `FileNotFoundError`.
    """


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that contains one JSON object.

    Raises:
        CheckpointError: the file is not JSON, contains something else than an object, or is larger or deeper
            than any file of a checkpoint.
    """
    with file.open("rb") as stream:
        data = stream.read(_MAX_TEXT + 1)
    # A character outside ASCII may make Python store all characters of a text in four bytes.
    if len(data) > _MAX_TEXT or (len(data) > _MAX_TEXT // 4 and not data.isascii()):
        raise CheckpointError(
            f"{file} is larger than any JSON file of a checkpoint: {file.stat().st_size} bytes"
        )
    if sum(map(data.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise CheckpointError(f"{file} contains more values than any JSON file of a checkpoint")
    try:
        contents = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {short_reason(error)}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} must contain one JSON object, got {type(contents).__name__}")
    if _is_deep(contents):
        raise CheckpointError(f"{file} contains values that are nested more than {_MAX_DEPTH} deep")
    return contents


def _is_deep(contents: dict[str, Any]) -> bool:
    level: list[Any] = [contents]
    for _ in range(_MAX_DEPTH):
        parts = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for part in parts for value in part if isinstance(value, dict | list)]
    return bool(level)


def check_header(file: Path) -> None:
    """Check the size of the header of a .safetensors file, which the library makes objects of.

    Raises:
        CheckpointError: it is larger than that of any model.
    """
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
    if size > _MAX_HEADER:
        raise CheckpointError(
            f"{file} is broken: its header of {size} bytes exceeds the limit of {_MAX_HEADER}"
        )


def check_count(place: object, count: int) -> None:
    """Check a number of tensors.

    Raises:
        CheckpointError: there are more than in any model; the message names the place.
    """
    if count > _MAX_TENSORS:
        raise CheckpointError(f"{place}: {count} tensors exceed the limit of {_MAX_TENSORS}")


def check_archive(file: Path) -> None:
    """Check a .bin file that is a zip archive: it contains all bytes as they are, and its pickle is small.

    Raises:
        CheckpointError: the archive is broken, compressed, or its pickle is larger than that of any model.
    """
    with file.open("rb") as stream:
        end = stream.seek(0, 2)
        directory = _read_directory(stream, end)
    at = 0
    while directory[at : at + 4] == _FILE and at + _FILE_SIZE <= len(directory):
        method, packed, size, name, extra, comment = struct.unpack_from("<H8xIIHHH", directory, at + 10)
        if method != _STORED or packed != size:
            raise CheckpointError(f"{file} is broken: it is compressed, which torch.save never does")
        what = directory[at + _FILE_SIZE : at + _FILE_SIZE + name]
        if what.endswith(b".pkl") and size > _MAX_PICKLE:
            raise CheckpointError(
                f"{file} is broken: its pickle of {size} bytes exceeds the limit of {_MAX_PICKLE}"
            )
        at += _FILE_SIZE + name + extra + comment
    if at != len(directory) or not directory:
        raise CheckpointError(f"{file} is broken: its list of files is invalid or too long")


def _read_directory(stream: Any, end: int) -> bytes:
    """Return the list of files of a zip archive, or nothing if there is none, or one that is too long."""

    def record(offset: int, size: int, sign: bytes) -> bytes | None:
        if offset < 0:
            return None
        stream.seek(offset)
        data: bytes = stream.read(size)
        return data if len(data) == size and data.startswith(sign) else None

    # torch.save writes no comment after the last record, and always the large one before it.
    if (last := record(end - _END_SIZE, _END_SIZE, _END)) is None:
        return b""
    size, offset = struct.unpack_from("<II", last, 12)
    if (locator := record(end - _END_SIZE - _LOCATOR_SIZE, _LOCATOR_SIZE, _LOCATOR)) is not None:
        (place,) = struct.unpack_from("<Q", locator, 8)
        large = record(place, _LARGE_END_SIZE, _LARGE_END) if place < end else None
        if large is None:
            return b""
        size, offset = struct.unpack_from("<QQ", large, 40)
    if size > _MAX_DIRECTORY or offset + size > end:
        return b""
    stream.seek(offset)
    directory: bytes = stream.read(size)
    return directory


def shard_name(index: Path, tensor: object, shard: object, suffix: str) -> str:
    """Return the name of a tensor's file in an index, after a check that it is in the same folder.

    Raises:
        CheckpointError: it is not, or is no name of a file.
    """
    if (
        isinstance(shard, str)
        and shard.isprintable()
        and Path(shard).name == shard
        and Path(shard).suffix == suffix
    ):
        return shard
    raise CheckpointError(
        f"{index}: the file of {brief(tensor)} must be a {suffix} file in the same folder, got {brief(shard)}"
    )


def list_names(names: list[str], shown: int = 8) -> str:
    """Join names for a message, the first `shown` of them, on one line."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    listed = (
        name if (name := str(each)).isprintable() and len(name) < 200 else brief(name)
        for each in names[:shown]
    )
    return ", ".join(listed) + more


def short_reason(error: BaseException) -> str:
    """Return the text of an error of a library, cut to one line of 200 characters."""
    text = " ".join(str(error)[:2000].split())
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
