"""Read the header of a file piece by piece, until it is complete, and all of one moment."""

import os
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from torchgguf.container.errors import GGUFError, GGUFTruncatedError
from torchgguf.container.layout import UNFINISHED_MAGIC
from torchgguf.container.reading.parser import GGUFHeader, parse_header
from torchgguf.container.system import lock_path, try_lock, unlock

FIRST_BYTES = 1 << 20  # enough for a small vocabulary; if it is not, the same amount again is read
_FIRST_LOCAL_BYTES = 1 << 22
MOST_BYTES = 1 << 28  # ten times the header of any real file

Fetch = Callable[[int, int], bytes]

_PATIENCE = 10.0  # seconds; an edit of a header takes milliseconds
_PAUSE = 0.002
_PIECE = 1 << 20


def fetch_header(path: str | PathLike[str], size: int, fetch: Fetch) -> GGUFHeader:
    """Fetch the first bytes of a file, and more until the header is complete.

    Args:
        path: the name of the file in messages.
        size: the size of the file in bytes.
        fetch: returns the bytes from start to end.

    Returns:
        The header.

    Raises:
        GGUFError: the header is invalid, incomplete or too long.
    """
    data = b""

    def extend(end: int) -> bytes:
        nonlocal data
        data += fetch(len(data), end)
        return data

    return _parse_growing(path, size, extend, FIRST_BYTES)


def read_header(descriptor: int, path: str | PathLike[str]) -> tuple[GGUFHeader, int]:
    """Read the header of an open file, which another process may be editing.

    An editor changes bytes in place. So what was read is compared with what the file holds afterwards, and
    read again until both are equal. A lock would not do: a reader must never keep a writer waiting.

    Args:
        descriptor: the open file.
        path: its name in messages.

    Returns:
        The header, and the size of the file that it was checked with.

    Raises:
        GGUFError: the header is invalid, or does not stop changing.
        OSError: the system refuses.
    """
    deadline, before = time.monotonic() + _PATIENCE, None
    while True:
        reading, header, problem = _Reading(descriptor), None, None
        try:
            header = _parse_growing(path, reading.status.st_size, reading.extend, _FIRST_LOCAL_BYTES)
        except GGUFError as error:
            problem = error
        late = time.monotonic() > deadline
        if reading.data.startswith(UNFINISHED_MAGIC):
            done = late or _is_abandoned(descriptor, Path(path))
        else:
            done = reading.is_still_true(MOST_BYTES if header is None else header.data_offset, before)
        if done:
            if header is None:
                assert problem is not None
                raise problem
            return header, reading.status.st_size
        if late:
            raise GGUFError("its metadata do not stop changing: try again later", path=path)
        before = reading
        time.sleep(_PAUSE)


def pread(descriptor: int, start: int, end: int) -> bytes:
    """Read the bytes from start to end; fewer if the file ends before."""
    pieces = []
    while start < end and (piece := os.pread(descriptor, end - start, start)):
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _parse_growing(
    path: str | PathLike[str], size: int, extend: Callable[[int], bytes], first: int
) -> GGUFHeader:
    """Parse the first bytes of a file, and more of them until the header is complete.

    Args:
        path: the name of the file in messages.
        size: the size of the file in bytes.
        extend: returns the bytes up to an end, or fewer if the file has become shorter.
        first: how many bytes to parse first.
    """
    if size == 0:
        raise GGUFError("is empty", path=path)
    end = min(size, first)
    while True:
        data = extend(end)
        try:
            return parse_header(data, path=path, file_size=size)
        except GGUFTruncatedError as error:
            if len(data) < end or error.needed > size:
                raise
            if error.needed > MOST_BYTES:
                raise GGUFError(f"its header does not end within {MOST_BYTES} bytes", path=path) from None
            end = min(size, max(2 * len(data), error.needed))


class _Reading:
    """What was read from a file, in order to compare it with what the file holds afterwards."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.data = b""
        self.status = os.fstat(descriptor)

    def extend(self, end: int) -> bytes:
        self.data = pread(self._descriptor, 0, end)
        return self.data

    def is_still_true(self, end: int, before: "_Reading | None") -> bool:
        end = min(end, len(self.data))
        equal = all(
            pread(self._descriptor, at, min(at + _PIECE, end)) == self.data[at : min(at + _PIECE, end)]
            for at in range(0, end, _PIECE)
        )
        # Edits back and forth can leave equal bytes, but hardly within one tick of the clock, or twice. The
        # time alone does not decide: a download that is still running changes it without end.
        then, now = self.status, os.fstat(self._descriptor)
        unchanged = (now.st_mtime_ns, now.st_size) == (then.st_mtime_ns, then.st_size)
        return equal and (unchanged or (before is not None and self.data[:end] == before.data[:end]))


def _is_abandoned(descriptor: int, path: Path) -> bool:
    """Return whether an edit is unfinished although no process is at work on it."""
    locked = try_lock(descriptor, shared=True)
    if locked is False or (locked is None and lock_path(path.resolve()).exists()):
        return False
    # It may have ended since the header was read.
    unfinished = os.pread(descriptor, len(UNFINISHED_MAGIC), 0) == UNFINISHED_MAGIC
    unlock(descriptor)
    return unfinished
