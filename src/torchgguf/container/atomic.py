"""Write files atomically: a file appears under its name when it is complete, or not at all."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from io import FileIO
from os import PathLike
from pathlib import Path

from torchgguf.container.drafts import DRAFT_PREFIX, Draft, remove_abandoned
from torchgguf.container.system import checked_path, sync

_MOST_LINKS = 40  # one after the other, as Linux follows


@contextmanager
def atomic_write(path: str | PathLike[str]) -> Iterator[FileIO]:
    """Open a new unbuffered file that replaces `path` when the block ends without an exception.

    Until then the old file stays in place. Processes that have it open or mapped keep the old contents even
    afterwards. The new file has the mode of the old one, or the default mode if there was none. Which file is
    replaced behind a symbolic link, see `written_place`.

    Args:
        path: the file to create or replace.

    Yields:
        The new file, opened for writing.

    Raises:
        OSError: the system refuses, or `path` is not a regular file. The error names `path` if it names no
            other file.
    """
    target = written_place(path)
    mode = _mode_of_old(target)
    with _opened(target.parent) as directory, _errors_named(target):
        remove_abandoned(directory)
        with closing(Draft(directory, mode)) as draft:
            yield draft.file
            draft.replace(target.name)
        sync(directory)


def written_place(path: str | PathLike[str]) -> Path:
    """Return the absolute path of the file that writing to `path` creates or replaces.

    Symbolic links are followed, except one to a blob in the cache of the Hugging Face Hub: there, such a link
    is replaced itself. Several snapshots share a blob, and its name is the hash of its contents.

    Args:
        path: the file or link to write to.

    Raises:
        OSError: links point to each other in a circle.
    """
    place = checked_path(path)
    for _ in range(_MOST_LINKS):
        if place.name in ("", ".."):
            return resolved(place)
        place = resolved(place.parent) / place.name
        if not place.is_symlink():
            return place
        following = place.parent / place.readlink()
        if _is_hub_blob(following):
            return place
        place = following
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def check_not_read(out: str | PathLike[str], *read: str | PathLike[str] | None) -> None:
    """Check that a file to write is not one of the files to read.

    Raises:
        ValueError: it is one of them.
    """
    if written_place(out) in {written_place(path) for path in read if path is not None}:
        raise ValueError(f"{out} is a file to read and would be lost: name another output file")


def resolved(path: str | PathLike[str]) -> Path:
    """Return a path without symbolic links, as `Path.resolve` does.

    Raises:
        OSError: links point to each other in a circle (Python before 3.13 raises a RuntimeError), or the path
            is invalid.
    """
    try:
        return checked_path(path).resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


def _is_hub_blob(path: Path) -> bool:
    """Return whether a path is `models--owner--name/blobs/<hash>`, the layout of the Hub's cache."""
    blobs = resolved(path.parent)
    return blobs.name == "blobs" and "--" in blobs.parent.name and (blobs.parent / "snapshots").is_dir()


@contextmanager
def atomic_write_all(paths: Sequence[Path]) -> Iterator[list[FileIO]]:
    """Open new unbuffered files in one folder, which appear when the block ends without an exception.

    No system call replaces several files at once, so existing files are never replaced. The last file is
    named first: a process that is killed at that moment leaves a set without its first file, and every file
    in that set is complete; but where the file system has no hard links, one of them may be empty.

    Args:
        paths: the files to create, all in the same folder.

    Yields:
        The new files, opened for writing, in the order of `paths`.

    Raises:
        FileExistsError: one of the files exists already.
        OSError: the system refuses. The error names the first file if it names no other.
    """
    folder, names = resolved(paths[0].parent), [path.name for path in paths]
    with _opened(folder) as directory, _errors_named(folder / names[0]), ExitStack() as cleanup:
        for name in names:
            if os.path.lexists(folder / name):
                raise _exists(folder / name)
        remove_abandoned(directory)
        drafts = [cleanup.enter_context(closing(Draft(directory))) for _ in names]
        yield [draft.file for draft in drafts]
        for draft in drafts:
            sync(draft.file.fileno())
        named: list[str] = []
        try:
            for draft, name in zip(reversed(drafts), reversed(names), strict=True):
                named.append(name)
                try:
                    draft.appear(name)
                except FileExistsError:
                    named.remove(name)
                    raise _exists(folder / name) from None
        except BaseException:
            for name in named:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            raise
        sync(directory)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


@contextmanager
def _errors_named(target: Path) -> Iterator[None]:
    """Name `target` in an OSError that names no file or only a temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(DRAFT_PREFIX):
            error.filename = str(target)
        raise


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "exists already, and a set of files is never replaced", str(path))


def _mode_of_old(target: Path) -> int | None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        reason = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(reason, "only a regular file can be replaced", str(target))
    if not os.access(target, os.W_OK):  # os.replace does not check this
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return stat.S_IMODE(mode)
