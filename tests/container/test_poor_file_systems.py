"""Writes, edits and splits where a file system lacks calls, and refuses them as exFAT, SMB and FUSE do.

What the system answers is simulated at the call itself; one test mounts a real file system of that kind.
"""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading

import pytest
import torch

from torchgguf.container import (
    GGUFError,
    TensorSource,
    TensorType,
    edit_metadata,
    merge_gguf,
    open_gguf,
    split_gguf,
    write_gguf,
)
from torchgguf.container.layout import UNFINISHED_MAGIC

ERRORS = [errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOSYS]
WEIGHTS = {f"w{i}": torch.arange(100.0) + i for i in range(4)}


def without_tmpfile(patch, error):
    real = os.open

    def opened(path, flags, *args, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise error
        return real(path, flags, *args, **options)

    patch.setattr(os, "open", opened)


def without_folder_sync(patch, error):
    real = os.fsync

    def synced(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise error
        real(descriptor)

    patch.setattr(os, "fsync", synced)


def without(module, name):
    def refused(patch, error):
        def call(*args, **options):
            raise error

        patch.setattr(module, name, call)

    return refused


LACKING = {
    "O_TMPFILE": [without_tmpfile],
    "links": [without(os, "link")],
    "links or O_TMPFILE": [without(os, "link"), without_tmpfile],
    "locks": [without(fcntl, "flock")],
    "synced folders": [without_folder_sync],
    "any sync": [without(os, "fsync")],
    "modes": [without(os, "fchmod")],
    "all of it": [
        without_tmpfile,
        without(os, "link"),
        without(fcntl, "flock"),
        without(os, "fsync"),
        without(os, "fchmod"),
    ],
}


@pytest.fixture(params=LACKING)
def lacking(request, monkeypatch):
    """A function that takes calls away, with an error."""

    def take_away(number):
        for refuse in LACKING[request.param]:
            refuse(monkeypatch, OSError(number, os.strerror(number)))

    return take_away


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def everything_works_in(folder):
    """Write, replace, edit, split and merge in an empty folder."""
    path = folder / "x.gguf"
    write_gguf(path, {"general.name": "new"}, {})
    write_gguf(path, {"general.name": "replaced"}, WEIGHTS)
    assert not edit_metadata(path, {"general.author": "somebody"}).in_place
    assert edit_metadata(path, {"general.author": "nobody"}).in_place
    with open_gguf(path) as file:
        assert (file.metadata["general.name"], file.metadata["general.author"]) == ("replaced", "nobody")
        assert all(torch.equal(file[name], WEIGHTS[name]) for name in WEIGHTS)
    assert names(folder) == ["x.gguf"]
    parts = split_gguf(path, folder / "part", max_tensors=2)
    with pytest.raises(FileExistsError, match=r"part-0000.-of-00002\.gguf"):
        split_gguf(path, folder / "part", max_tensors=2)
    edit_metadata(parts[1], {"general.name": "of the parts"})
    merge_gguf(parts[0], folder / "merged.gguf")
    with open_gguf(folder / "merged.gguf", mmap=False) as file:
        assert file.metadata["general.name"] == "of the parts"
        assert all(torch.equal(file[name], WEIGHTS[name]) for name in WEIGHTS)
    assert names(folder) == ["merged.gguf", *(part.name for part in parts), "x.gguf"]


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_everything_works_by_the_next_best_means(tmp_path, lacking, number):
    lacking(number)
    everything_works_in(tmp_path)


def test_a_real_file_system_without_all_of_it(tmp_path):
    """Of FUSE, in a process of its own. It asks the system whether these calls are really missing."""
    command = [sys.executable, "-m", "tests.peers.plain_fs", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as served:
        if served.stdout.readline() != "mounted\n":
            pytest.skip("may not mount")
        try:
            probe = tmp_path / "probe"
            probe.touch()
            with probe.open() as file, pytest.raises(OSError, match="not supported"):
                fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(OSError, match="not permitted"):
                probe.chmod(0o600)
            with pytest.raises(OSError, match="not permitted"):
                os.link(probe, tmp_path / "link")
            probe.unlink()
            everything_works_in(tmp_path)
        finally:
            subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_file_that_appears_while_a_set_is_written_stays(tmp_path, lacking):
    lacking(errno.EPERM)
    path = tmp_path / "x.gguf"
    write_gguf(path, {}, WEIGHTS)
    other = tmp_path / "part-00001-of-00002.gguf"

    def appear(done, total):
        other.write_text("of somebody else")

    with pytest.raises(FileExistsError, match=r"part-00001-of-00002\.gguf"):
        split_gguf(path, tmp_path / "part", max_tensors=2, progress=appear)
    assert other.read_text() == "of somebody else"
    assert names(tmp_path) == [other.name, "x.gguf"]


def test_what_fails_leaves_nothing(tmp_path, lacking):
    lacking(errno.EOPNOTSUPP)

    def load():
        raise RuntimeError("no such weight")

    source = TensorSource((4,), TensorType.F32, load)
    with pytest.raises(RuntimeError, match="no such weight"):
        write_gguf(tmp_path / "x.gguf", {}, {"a": torch.ones(100_000), "b": source})
    assert names(tmp_path) == []


def test_where_there_are_no_locks_a_file_stands_for_one(tmp_path, monkeypatch):
    without(fcntl, "flock")(monkeypatch, OSError(errno.EOPNOTSUPP, "Operation not supported"))
    path = tmp_path / "x.gguf"
    write_gguf(path, {}, WEIGHTS)

    def meanwhile(done, total):
        with pytest.raises(
            GGUFError, match=r"is editing its metadata; if there is none, delete x\.gguf\.lock"
        ):
            edit_metadata(path, {"general.name": "second"})

    edit_metadata(path, {"general.name": "first"}, progress=meanwhile)
    assert open_gguf(path).metadata["general.name"] == "first"
    assert names(tmp_path) == ["x.gguf"]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, monkeypatch):
    path, lock = tmp_path / "x.gguf", tmp_path / "x.gguf.lock"
    write_gguf(path, {}, WEIGHTS)
    without(fcntl, "flock")(monkeypatch, OSError(errno.EOPNOTSUPP, "Operation not supported"))
    child = os.fork()
    if child == 0:
        edit_metadata(path, {"general.name": "of the child"}, progress=lambda done, total: os._exit(7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert lock.exists()
    edit_metadata(path, {"general.name": "after"})
    assert open_gguf(path).metadata["general.name"] == "after"
    assert names(tmp_path) == ["x.gguf"]
    for foreign in ("", "01234567 1\n", "of another program"):
        lock.write_text(foreign)
        with pytest.raises(GGUFError, match=r"delete x\.gguf\.lock"):
            edit_metadata(path, {"general.name": "never"})
        assert lock.read_text() == foreign


def test_where_there_are_no_locks_readers_wait_for_an_edit(tmp_path, monkeypatch):
    path = tmp_path / "x.gguf"
    write_gguf(path, {"general.name": "whole"}, WEIGHTS)
    without(fcntl, "flock")(monkeypatch, OSError(errno.EOPNOTSUPP, "Operation not supported"))
    begin = path.read_bytes()[:8]

    def overwrite(data):
        with path.open("r+b") as file:
            file.write(data)

    overwrite(UNFINISHED_MAGIC)
    (tmp_path / "x.gguf.lock").touch()
    editor = threading.Timer(0.3, overwrite, [begin])
    editor.start()
    assert open_gguf(path).metadata["general.name"] == "whole"
    editor.join()
    (tmp_path / "x.gguf.lock").unlink()
    overwrite(UNFINISHED_MAGIC)
    with pytest.raises(GGUFError, match="unfinished edit"):
        open_gguf(path)
