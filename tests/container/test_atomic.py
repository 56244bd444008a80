"""A write that fails, in whichever way, leaves the old file as it was and nothing beside it."""

import os
import re
import signal
import stat
import subprocess
import sys
import textwrap

import pytest
import torch

from torchgguf.container import GGUFError, TensorSource, TensorType, open_gguf, write_gguf


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, {"name": "old"}, {"w": torch.arange(8.0)})
    return path


def assert_untouched(path, content):
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def in_a_process(path, code):
    """Run code in a process of its own, with `path` as sys.argv[1]."""
    program = "import sys\nfrom torchgguf.container import *\nimport torch\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_an_exception_while_a_tensor_is_loaded(old, error):
    def load():
        raise error("no such weight")

    content = old.read_bytes()
    sources = {"a": torch.ones(100_000), "b": TensorSource((4,), TensorType.F32, load)}
    with pytest.raises(error, match="no such weight"):
        write_gguf(old, {}, sources)
    assert_untouched(old, content)


def test_a_killed_process(old):
    content = old.read_bytes()
    process = in_a_process(
        old,
        """
        import time
        def load():
            print("writing", flush=True)
            time.sleep(60)
        write_gguf(sys.argv[1], {}, {"a": torch.ones(100_000), "b": TensorSource((4,), TensorType.F32, load)})
        """,
    )
    with process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert_untouched(old, content)


def test_a_full_disk(old):
    """A limit on the size of files ends a write as a full disk does."""
    content = old.read_bytes()
    process = in_a_process(
        old,
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_gguf(sys.argv[1], {}, {"a": torch.ones(1000), "b": torch.ones(100_000)})
        except GGUFError as error:
            print(error)
        """,
    )
    output, errors = process.communicate(timeout=60)
    assert re.fullmatch(
        r".*writing failed: File too large, it needs \d+ bytes; nothing was changed\n", output
    ), errors
    assert_untouched(old, content)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_file_system_that_is_really_full(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        path = tmp_path / "model.gguf"
        write_gguf(path, {}, {"w": torch.ones(8)})
        content = path.read_bytes()
        with pytest.raises(GGUFError, match="writing failed: No space left on device"):
            write_gguf(path, {}, {"w": torch.ones(100_000)})
        assert_untouched(path, content)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_where_files_cannot_be_nameless(old, monkeypatch):
    """Without O_TMPFILE there is a file with a name for a while; it goes too."""
    monkeypatch.delattr(os, "O_TMPFILE")
    content = old.read_bytes()

    def load():
        assert len(list(old.parent.iterdir())) == 2
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_gguf(old, {}, {"b": TensorSource((4,), TensorType.F32, load)})
    assert_untouched(old, content)
    write_gguf(old, {}, {"w": torch.ones(2)})
    assert open_gguf(old)["w"].tolist() == [1, 1]
    assert list(old.parent.iterdir()) == [old]


def test_a_file_that_appears_meanwhile_is_replaced(tmp_path):
    path = tmp_path / "model.gguf"

    def load():
        path.write_text("of somebody else")
        return torch.ones(4)

    write_gguf(path, {}, {"w": TensorSource((4,), TensorType.F32, load)})
    assert open_gguf(path)["w"].tolist() == [1, 1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_open_can_be_replaced_from_itself(old):
    file = open_gguf(old)
    before = file["w"]
    sources = file.sources() | {"added": torch.ones(100_000)}
    write_gguf(old, file.metadata | {"name": "new"}, dict(reversed(sources.items())))
    assert before.tolist() == file["w"].tolist() == list(range(8))
    with open_gguf(old) as replaced:
        assert replaced.metadata == {"name": "new"}
        assert list(replaced) == ["added", "w"]
        assert replaced["w"].tolist() == list(range(8))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_any_new_file(tmp_path, umask):
    previous = os.umask(umask)
    try:
        write_gguf(tmp_path / "x.gguf", {}, {})
        (tmp_path / "y").touch()
    finally:
        os.umask(previous)
    assert (tmp_path / "x.gguf").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_replaced_file_keeps_its_mode(old):
    old.chmod(0o640)
    write_gguf(old, {}, {})
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(old):
    (old.parent / "links").mkdir()
    link = old.parent / "links" / "latest.gguf"
    link.symlink_to("../model.gguf")
    write_gguf(link, {"name": "new"}, {})
    assert link.is_symlink()
    assert open_gguf(old).metadata == {"name": "new"}
    assert [path.name for path in link.parent.iterdir()] == ["latest.gguf"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to anything")
def test_a_write_protected_file_is_not_replaced(old):
    content = old.read_bytes()
    old.chmod(0o444)
    with pytest.raises(PermissionError, match=r"model\.gguf"):
        write_gguf(old, {}, {})
    assert_untouched(old, content)


def test_only_regular_files_are_replaced(tmp_path):
    with pytest.raises(IsADirectoryError, match="only a regular file can be replaced"):
        write_gguf(tmp_path, {}, {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="only a regular file can be replaced"):
        write_gguf(tmp_path / "pipe", {}, {})
    with pytest.raises(FileNotFoundError, match="missing"):
        write_gguf(tmp_path / "missing" / "x.gguf", {}, {})
