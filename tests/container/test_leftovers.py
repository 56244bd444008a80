"""What a killed writer leaves is removed by the next one in that folder; what a living one writes stays."""

import os
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from torchgguf.container import open_gguf, split_gguf, write_gguf
from torchgguf.container.drafts import this_place


def writer(path, *, locks):
    """A process that writes a file under a temporary name, and waits."""
    program = f"""
        import fcntl, os, time, torch
        del os.O_TMPFILE
        if not {locks}:
            def flock(*args):
                raise OSError(95, "Operation not supported")
            fcntl.flock = flock
        from torchgguf.container import TensorSource, TensorType, write_gguf
        def load():
            print("writing", flush=True)
            time.sleep(60)
        last = TensorSource((4,), TensorType.F32, load)
        write_gguf({str(path)!r}, {{}}, {{"a": torch.ones(1000), "b": last}})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("locks", [True, False])
def test_they_go_when_their_writer_is_dead(tmp_path, locks):
    with writer(tmp_path / "x.gguf", locks=locks) as process:
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".torchgguf-")
        write_gguf(tmp_path / "y.gguf", {}, {"w": torch.ones(8)})
        assert left.exists()  # it is alive
        process.kill()
    split_gguf(tmp_path / "y.gguf", tmp_path / "z", max_tensors=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y.gguf", "z-00001-of-00001.gguf"]


@pytest.mark.parametrize(
    "name, hours, goes",
    [
        (".torchgguf-01234567-1-0123456789abcdef", 1, False),  # of another machine
        (".torchgguf-01234567-1-0123456789abcdef", 25, True),
        (".torchgguf-0123456789abcdef", 1, False),  # as earlier versions called them
        (".torchgguf-0123456789abcdef", 25, True),
        (f".torchgguf-{this_place()}-{2**22 + 1}-0123456789abcdef", 0, True),  # no process has this number
        (".torchggufs", 25, False),
    ],
)
def test_who_cannot_be_asked_has_a_day(tmp_path, name, hours, goes):
    left = tmp_path / name
    left.touch()
    long_ago = time.time() - hours * 3600
    os.utime(left, (long_ago, long_ago))
    write_gguf(tmp_path / "x.gguf", {}, {})
    assert left.exists() is not goes


def test_a_folder_or_a_link_of_that_name_stays(tmp_path):
    folder, link = tmp_path / ".torchgguf-0123456789abcdef", tmp_path / ".torchgguf-fedcba9876543210"
    folder.mkdir()
    link.symlink_to("somewhere")
    for path in (folder, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    write_gguf(tmp_path / "x.gguf", {}, {})
    assert folder.is_dir()
    assert link.is_symlink()


def test_many_writers_do_not_take_each_other_for_dead(tmp_path):
    """Each of them looks for leftovers while others create their files."""
    program = f"""
        import os, sys
        del os.O_TMPFILE
        from torchgguf.container import write_gguf
        for i in range(150):
            write_gguf({str(tmp_path)!r} + f"/{{sys.argv[1]}}-{{i % 5}}.gguf", {{"i": i}}, {{}})
    """
    processes = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(i)], stderr=subprocess.PIPE)
        for i in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert len(list(tmp_path.iterdir())) == 15
    assert open_gguf(tmp_path / "2-4.gguf").metadata["i"] == 149
