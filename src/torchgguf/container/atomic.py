"""Write files atomically: a file appears under its name when it is complete, or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from os import PathLike
from pathlib import Path

_PREFIX = ".torchgguf-"  # temporary names of unfinished files
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
        descriptor, name = _create(directory)
        try:
            with FileIO(descriptor, "wb") as file:
                if mode is not None:
                    os.fchmod(descriptor, mode)
                yield file
                os.fsync(descriptor)
                if name is None and mode is None:
                    with suppress(FileExistsError):  # another process created the file first: replace it
                        _link(descriptor, target.name, directory)
                        name = target.name
                if name is None:
                    name = _new_name()
                    _link(descriptor, name, directory)
            # This does nothing if the file has its final name already.
            os.replace(name, target.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            if name is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            raise
        os.fsync(directory)


def written_place(path: str | PathLike[str]) -> Path:
    """Return the absolute path of the file that writing to `path` creates or replaces.

    Symbolic links are followed, except one to a blob in the cache of the Hugging Face Hub: there, such a link
    is replaced itself. Several snapshots share a blob, and its name is the hash of its contents.

    Args:
        path: the file or link to write to.

    Raises:
        OSError: links point to each other in a circle.
    """
    place = Path(path)
    for _ in range(_MOST_LINKS):
        if place.name in ("", ".."):
            return place.resolve()
        place = place.parent.resolve() / place.name
        if not place.is_symlink():
            return place
        following = place.parent / place.readlink()
        if _is_hub_blob(following):
            return place
        place = following
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_hub_blob(path: Path) -> bool:
    """Return whether a path is `models--owner--name/blobs/<hash>`, the layout of the Hub's cache."""
    blobs = path.parent.resolve()
    return blobs.name == "blobs" and "--" in blobs.parent.name and (blobs.parent / "snapshots").is_dir()


@contextmanager
def atomic_write_all(paths: Sequence[Path]) -> Iterator[list[FileIO]]:
    """Open new unbuffered files in one folder, which appear when the block ends without an exception.

    No system call replaces several files at once, so existing files are never replaced. The last file is
    named first: a process that is killed at that moment leaves a set without its first file, and every file
    in that set is complete.

    Args:
        paths: the files to create, all in the same folder.

    Yields:
        The new files, opened for writing, in the order of `paths`.

    Raises:
        FileExistsError: one of the files exists already.
        OSError: the system refuses. The error names the first file if it names no other.
    """
    folder, names = paths[0].parent.resolve(), [path.name for path in paths]
    with _opened(folder) as directory, _errors_named(folder / names[0]), ExitStack() as cleanup:
        for name in names:
            if os.path.lexists(folder / name):
                raise _exists(folder / name)
        files, drafts = [], list[str | int]()
        for _ in names:
            descriptor, own_name = _create(directory)
            files.append(cleanup.enter_context(FileIO(descriptor, "wb")))
            drafts.append(descriptor if own_name is None else own_name)
            if own_name is not None:
                cleanup.callback(os.unlink, own_name, dir_fd=directory)
        yield files
        for file in files:
            os.fsync(file.fileno())
        named: list[str] = []
        try:
            for draft, name in zip(reversed(drafts), reversed(names), strict=True):
                named.append(name)
                try:
                    _link(draft, name, directory)
                except FileExistsError:
                    named.remove(name)
                    raise _exists(folder / name) from None
        except BaseException:
            for name in named:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            raise
        os.fsync(directory)


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
        if error.filename is None or str(error.filename).startswith(_PREFIX):
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


def _create(directory: int) -> tuple[int, str | None]:
    """Create a file without a name, which a dead process leaves nowhere; else one with a temporary name."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with suppress(OSError):  # some file systems do not support it
            return os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=directory), None
    name = _new_name()
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=directory), name


def _link(draft: int | str, name: str, directory: int) -> None:
    """Link an unnamed or temporary file under `name`; raise FileExistsError if that name exists."""
    source = f"/proc/self/fd/{draft}" if isinstance(draft, int) else draft
    os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory)


def _new_name() -> str:
    return _PREFIX + secrets.token_hex(8)
