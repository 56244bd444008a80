"""Overwrite the first bytes of a file in such a way that a crash loses nothing."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from os import PathLike
from pathlib import Path
from typing import IO

from torchgguf.container.atomic import atomic_write, resolved
from torchgguf.container.editing.lock_file import lock_file
from torchgguf.container.errors import GGUFError
from torchgguf.container.layout import UNFINISHED_MAGIC
from torchgguf.container.system import sync, try_lock

_UNDO = struct.Struct("<8sQI")  # mark, size of the file, CRC-32 of the saved bytes; these follow
_MARK = b"TGGUNDO1"


@contextmanager
def locked(path: str | PathLike[str]) -> Iterator[FileIO]:
    """Open a file for changes and lock it, so that only one process changes it at a time.

    Read everything that the changes depend on inside the block. Where the file system has no locks, a second
    file (`.lock`) stands for one.

    Args:
        path: the file.

    Yields:
        The file, opened for reading and writing.

    Raises:
        GGUFError: another process is editing the file, or has just replaced it.
        OSError: the system refuses.
    """
    target = resolved(path)
    with FileIO(target, "r+b") as file, ExitStack() as own:
        if (exclusive := try_lock(file.fileno())) is False:
            raise GGUFError("another process is editing its metadata", path=target)
        if exclusive is None:
            own.enter_context(lock_file(target))
        if not os.path.samestat(os.fstat(file.fileno()), Path(path).stat()):
            raise GGUFError("another process has just replaced it: try again", path=target)
        yield file


def overwrite_head(file: FileIO, path: str | PathLike[str], new: bytes) -> None:
    """Replace the first `len(new)` bytes of a `locked` file; the rest is unchanged.

    A second file (`.undo`) keeps the old bytes until the new ones are on the disk. Meanwhile the file has no
    magic number, so that no program reads a header that is half old and half new. After a crash it stays
    like that until `undo_unfinished` restores it. After an exception the old bytes are restored here.

    Args:
        file: the file, as from `locked`.
        path: its path.
        new: the new bytes.

    Raises:
        OSError: the system refuses.
    """
    target = resolved(path)
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
    """Restore the first bytes of a file after a process died in `overwrite_head`.

    Args:
        path: the file; nothing happens if it does not exist.

    Returns:
        Whether there was anything to restore.

    Raises:
        GGUFError: the `.undo` file is missing or broken, or another process is editing the file.
        OSError: the system refuses.
    """
    target = resolved(path)
    undo = _undo_path(target)
    if not target.is_file():
        return False
    with target.open("rb") as healthy:  # read-only, because a healthy file may be read-only
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
    """Write the magic number after everything else is on the disk."""
    _write(file, len(UNFINISHED_MAGIC), head[len(UNFINISHED_MAGIC) :])
    _write(file, 0, head[: len(UNFINISHED_MAGIC)])


def _read_undo(undo: Path, size: int) -> bytes:
    try:
        data = undo.read_bytes()
    except FileNotFoundError:
        reason = f"a process died while it wrote new metadata, and {undo.name} with the old ones is missing"
        raise GGUFError(reason, path=undo.parent) from None
    mark, own_size, checksum = _UNDO.unpack_from(data.ljust(_UNDO.size, b"\0"))
    old = data[_UNDO.size :]
    if (mark, own_size, checksum) != (_MARK, size, zlib.crc32(old)):
        raise GGUFError("is broken, or belongs to another file: the metadata are not restored", path=undo)
    return old


def _undo_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.undo")


def _forget(undo: Path) -> None:
    """Remove the saved bytes. If this fails, they stay without harm: the next edit removes them."""
    with suppress(OSError):
        undo.unlink(missing_ok=True)
        directory = os.open(undo.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync(directory)
        finally:
            os.close(directory)


def _write(file: FileIO, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written
    sync(file.fileno())
