"""The first bytes of a file overwritten, so that a crash in the middle loses nothing."""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from os import PathLike
from pathlib import Path
from typing import IO

from torchgguf.container.atomic import atomic_write
from torchgguf.container.errors import GGUFError
from torchgguf.container.layout import UNFINISHED_MAGIC

_UNDO = struct.Struct("<8sQI")  # mark, size of the file, CRC-32 of its first bytes, which follow
_MARK = b"TGGUNDO1"


@contextmanager
def locked(path: str | PathLike[str]) -> Iterator[FileIO]:
    """A file open for changes, which only one process makes at a time.

    What the changes depend on is to be read within the block. GGUFError if another process is at it.
    """
    target = Path(path).resolve()
    with FileIO(target, "r+b") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GGUFError("its metadata are being edited by another process", path=target) from None
        if not os.path.samestat(os.fstat(file.fileno()), target.stat()):
            raise GGUFError("has just been replaced by another process: try again", path=target)
        yield file


def overwrite_head(file: FileIO, path: str | PathLike[str], new: bytes) -> None:
    """Replace as many first bytes of a `locked` file as `new` has; the rest stays where it is.

    The old bytes are kept in a file beside it (`.undo`) until the new ones are on the disk. Meanwhile the
    file has no magic number, so that no program reads half an old and half a new header; a crash leaves it
    so, and `undo_unfinished` restores it. Any exception here does the same. OSError if the system refuses.
    """
    target = Path(path).resolve()
    undo = _undo_path(target)
    old = os.pread(file.fileno(), len(new), 0)
    if old == new:
        return
    with atomic_write(undo) as copy:
        _write(copy, 0, _UNDO.pack(_MARK, os.fstat(file.fileno()).st_size, zlib.crc32(old)) + old)
    try:
        _write(file, 0, UNFINISHED_MAGIC)
        _write_last_first(file, new)
    except BaseException:
        _write_last_first(file, old)
        _forget(undo)
        raise
    _forget(undo)


def undo_unfinished(path: str | PathLike[str]) -> bool:
    """Give a file the first bytes back that it had before a process died in `overwrite_head`.

    Returns whether there was anything to restore. GGUFError if what is needed for it is missing or broken.
    """
    target = Path(path).resolve()
    undo = _undo_path(target)
    if not target.is_file():
        return False
    with target.open("rb") as healthy:  # which need not be one that may be written to
        if not _is_unfinished(healthy) and not undo.exists():
            return False
    with locked(target) as file:
        if unfinished := _is_unfinished(file):
            _write_last_first(file, _read_undo(undo, os.fstat(file.fileno()).st_size))
        _forget(undo)
    return unfinished


def _is_unfinished(file: IO[bytes] | FileIO) -> bool:
    return os.pread(file.fileno(), len(UNFINISHED_MAGIC), 0) == UNFINISHED_MAGIC


def _write_last_first(file: FileIO, head: bytes) -> None:
    """Write the magic number when all else is on the disk."""
    _write(file, len(UNFINISHED_MAGIC), head[len(UNFINISHED_MAGIC) :])
    _write(file, 0, head[: len(UNFINISHED_MAGIC)])


def _read_undo(undo: Path, size: int) -> bytes:
    try:
        data = undo.read_bytes()
    except FileNotFoundError:
        reason = (
            f"a process died while it wrote new metadata, and {undo.name}, which has the old ones, is gone"
        )
        raise GGUFError(reason, path=undo.parent) from None
    mark, own_size, checksum = _UNDO.unpack_from(data.ljust(_UNDO.size, b"\0"))
    old = data[_UNDO.size :]
    if (mark, own_size, checksum) != (_MARK, size, zlib.crc32(old)):
        raise GGUFError("is broken, or of another file: it cannot be used to restore the metadata", path=undo)
    return old


def _undo_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.undo")


def _forget(undo: Path) -> None:
    undo.unlink(missing_ok=True)
    directory = os.open(undo.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(file: FileIO, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written
    os.fsync(file.fileno())
