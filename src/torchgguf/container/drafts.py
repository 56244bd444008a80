"""Unfinished files: how they get their names when they are complete, and how those of dead processes go."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from contextlib import suppress
from functools import cache
from hashlib import sha256
from io import FileIO
from pathlib import Path

from torchgguf.container.system import NO_SUCH_CALL, sync, try_lock

DRAFT_PREFIX = ".torchgguf-"  # temporary names of unfinished files
_NAME = re.compile(re.escape(DRAFT_PREFIX) + r"(?P<place>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{16}")
_NO_LINKS = NO_SUCH_CALL | {errno.ENOENT, errno.EXDEV, errno.EMLINK}  # answers where there are no hard links
_DAY = 86_400  # seconds; no writer pauses that long


class Draft:
    """A new file in an open folder. It has no name, which a dead process leaves nowhere, or a temporary one.

    Where it has a temporary name, this name and a lock show that its process is alive.

    Args:
        directory: the open folder.
        mode: the mode of the file; by default that of any new file.

    Attributes:
        file: the file, opened for writing without a buffer.
    """

    def __init__(self, directory: int, mode: int | None = None) -> None:
        self._directory, self._mode = directory, mode
        self._name: str | None = None
        descriptor = None
        if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
            with suppress(OSError):  # some file systems do not support it
                descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o666, dir_fd=directory)
        if descriptor is None:
            descriptor, self._name = _create_named(directory)
        self.file = FileIO(descriptor, "r+b")
        self._set_mode()

    def replace(self, name: str) -> None:
        """Give the file its name, in place of a file of that name.

        Raises:
            OSError: the system refuses.
        """
        sync(self.file.fileno())
        if self._name is None and self._mode is None:
            # Another process may have created the file meanwhile, which is then replaced.
            with suppress(OSError):
                self._link(name)
                return
        if self._name is None:
            self._name_unnamed()
        assert self._name is not None
        os.replace(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._name = None

    def appear(self, name: str) -> None:
        """Give the file its name, which must be free; `sync` the file first.

        Raises:
            FileExistsError: there is a file of that name.
            OSError: the system refuses.
        """
        try:
            self._link(name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Reserve the name, then replace the own empty file.
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=self._directory))
            try:
                self.replace(name)
            except BaseException:
                os.unlink(name, dir_fd=self._directory)
                raise
        else:
            self._forget_name()

    def close(self) -> None:
        """Close the file; if it has no final name, it vanishes."""
        self._forget_name()
        self.file.close()

    def _link(self, name: str) -> None:
        source = f"/proc/self/fd/{self.file.fileno()}" if self._name is None else self._name
        os.link(source, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _name_unnamed(self) -> None:
        try_lock(self.file.fileno())
        name = _new_name()
        try:
            self._link(name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy_to_named()
        else:
            self._name = name

    def _copy_to_named(self) -> None:
        descriptor, self._name = _create_named(self._directory)
        old, self.file = self.file, FileIO(descriptor, "r+b")
        with old:
            self._set_mode()
            size, done = os.fstat(old.fileno()).st_size, 0
            while done < size:
                done += os.sendfile(descriptor, old.fileno(), done, size - done)
        sync(descriptor)

    def _set_mode(self) -> None:
        if self._mode is None:
            return
        try:
            os.fchmod(self.file.fileno(), self._mode)
        except OSError as error:  # file systems without modes
            if error.errno not in NO_SUCH_CALL:
                raise

    def _forget_name(self) -> None:
        if self._name is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._directory)
            self._name = None


def remove_abandoned(directory: int) -> None:
    """Remove the unfinished files of dead processes from an open folder; what cannot be removed stays.

    A file is surely abandoned if its process ran under this kernel and is gone, or if nobody has written to
    it for a day. In any case nobody may hold its lock.

    Args:
        directory: the open folder.
    """
    with suppress(OSError):
        for name in os.listdir(directory):
            if name.startswith(DRAFT_PREFIX):
                with suppress(OSError):
                    _remove_if_abandoned(name, directory)


def process_is_gone(place: str, process: int) -> bool | None:
    """Return whether a process has ended; None if it runs elsewhere, so that nobody here knows.

    Args:
        place: the `this_place` of the process.
        process: its number.
    """
    if place != this_place():
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


@cache
def this_place() -> str:
    """Return what tells the processes of this kernel, and their numbers, from those of others."""
    parts = [os.uname().nodename]
    with suppress(OSError):  # of Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return sha256("\n".join(parts).encode()).hexdigest()[:8]


def _remove_if_abandoned(name: str, directory: int) -> None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        locked = try_lock(file)
        if locked is False:
            return
        match = _NAME.fullmatch(name)
        gone = process_is_gone(match["place"], int(match["process"])) if match else None
        old = time.time() - os.fstat(file).st_mtime > _DAY
        if gone or (old and (locked or gone is None)):  # another process may have the number now
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(file)


def _create_named(directory: int) -> tuple[int, str]:
    while True:
        name = _new_name()
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666, dir_fd=directory)
        with suppress(OSError):
            if try_lock(descriptor) is not False and os.path.samestat(
                os.fstat(descriptor), os.stat(name, dir_fd=directory)
            ):
                return descriptor, name
        os.close(descriptor)  # another process took it for abandoned before it was locked
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _new_name() -> str:
    return f"{DRAFT_PREFIX}{this_place()}-{os.getpid()}-{secrets.token_hex(8)}"
