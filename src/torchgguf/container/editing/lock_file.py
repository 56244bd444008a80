"""Lock a file by a second one, where the file system has no locks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchgguf.container.drafts import process_is_gone, this_place
from torchgguf.container.errors import GGUFError
from torchgguf.container.system import lock_path


@contextmanager
def lock_file(target: Path) -> Iterator[None]:
    """Hold the lock of a file: another file beside it, `.lock`, which names this process.

    Args:
        target: the file to lock.

    Raises:
        GGUFError: another process holds the lock. If it is gone, and ran under this kernel, its lock is
            taken over; of other machines nobody here knows.
        OSError: the system refuses.
    """
    lock = lock_path(target)
    while True:
        try:
            file = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            break
        except FileExistsError:
            if not _take_over(lock):
                reason = f"another process is editing its metadata; if there is none, delete {lock.name}"
                raise GGUFError(reason, path=target) from None
    try:
        os.write(file, f"{this_place()} {os.getpid()}\n".encode())
        os.close(file)
        yield
    finally:
        with suppress(OSError):
            lock.unlink()


def _take_over(lock: Path) -> bool:
    """Remove the lock of a process that is gone; return whether to try again."""
    try:
        owner = lock.read_text()
        place, process = owner.split()
        if not process_is_gone(place, int(process)):
            return False
        taken = lock.with_name(f"{lock.name}-{os.getpid()}")
        lock.rename(taken)  # of several processes only one succeeds
        if taken.read_text() != owner:  # the lock of another one that was faster
            taken.rename(lock)
            return False
        taken.unlink()
    except FileNotFoundError:
        return True
    except ValueError:  # the lock is not written yet, or is not ours
        return False
    return True
