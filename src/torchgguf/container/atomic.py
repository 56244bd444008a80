"""Files that appear under their names whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from os import PathLike
from pathlib import Path

_PREFIX = ".torchgguf-"  # of files that have not got their name yet


@contextmanager
def atomic_write(path: str | PathLike[str]) -> Iterator[FileIO]:
    """A new unbuffered file, which takes the place of `path` when the block ends without an exception.

    Until then whatever was there stays, and who has it open or mapped keeps it even afterwards. The new
    file gets the old one's mode, or that of any new file. A symbolic link stays: what it names is replaced.
    An OSError that names no file of its own, as that of a full disk, names `path`.
    """
    target = Path(path).resolve()
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
                    with suppress(FileExistsError):  # somebody was faster: that is replaced
                        _link(descriptor, target.name, directory)
                        name = target.name
                if name is None:
                    name = _new_name()
                    _link(descriptor, name, directory)
            # Which does nothing where it has its name already.
            os.replace(name, target.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            if name is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            raise
        os.fsync(directory)


@contextmanager
def atomic_write_all(paths: Sequence[Path]) -> Iterator[list[FileIO]]:
    """New unbuffered files in one folder: all get their names when the block ends without an exception.

    FileExistsError if one of them is there already, as several files cannot be replaced at once. The last one
    is named first, so that a process killed in just that moment leaves a set whose first file is missing, and
    every file that is there whole. An OSError that names no file of its own names the first.
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
    """Let an OSError that names no file, or one without its name yet, name `target`."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(_PREFIX):
            error.filename = str(target)
        raise


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "is there already, and a set of files is never replaced", str(path))


def _mode_of_old(target: Path) -> int | None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        reason = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(reason, "only a regular file can be replaced", str(target))
    if not os.access(target, os.W_OK):  # renaming would not ask
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    return stat.S_IMODE(mode)


def _create(directory: int) -> tuple[int, str | None]:
    """A new file without a name, which even a killed process does not leave behind; else one with a name."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with suppress(OSError):  # not every file system has them
            return os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=directory), None
    name = _new_name()
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=directory), name


def _link(draft: int | str, name: str, directory: int) -> None:
    """Give a nameless file a name, or one with a name another; FileExistsError if there is such a file."""
    source = f"/proc/self/fd/{draft}" if isinstance(draft, int) else draft
    os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory)


def _new_name() -> str:
    return _PREFIX + secrets.token_hex(8)
