"""Ask the system for what some file systems lack: locks, and the certainty that bytes are on the disk."""

import errno
import fcntl
import os
from contextlib import suppress
from os import PathLike
from pathlib import Path

# What exFAT, SMB, FUSE, overlays and mounted buckets answer where a call does not exist for their files.
NO_SUCH_CALL = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
        errno.ENOLCK,
        errno.EBADF,
        errno.EISDIR,
    }
)


def checked_path(path: str | PathLike[str]) -> Path:
    """Return a path that a file can have.

    Raises:
        OSError: it contains NUL or characters that file names cannot store. Python's own calls raise a
            ValueError for these.
    """
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, "a path must not contain NUL or a lone surrogate", str(path))
    return Path(path)


def try_lock(descriptor: int, shared: bool = False) -> bool | None:
    """Lock an open file until it is closed, without waiting.

    Args:
        descriptor: the open file.
        shared: others may lock it in the same way.

    Returns:
        True, or False if another holds a lock; None if the file system has no locks.

    Raises:
        OSError: the system refuses for another reason.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:
            raise
        return None
    return True


def lock_path(target: Path) -> Path:
    """Return the file that stands for the lock of another, where the file system has no locks."""
    return target.with_name(f"{target.name}.lock")


def unlock(descriptor: int) -> None:
    """Give up the lock of an open file, if there is one."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def sync(descriptor: int) -> None:
    """Wait until an open file or folder is on the disk, where the file system knows how to.

    Raises:
        OSError: writing failed.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:
            raise
