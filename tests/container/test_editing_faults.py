"""No crash, no full disk and no other process loses a file that is edited."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import gguf
import pytest

from tests.container.edited_file import TEMPLATE, contents, write_example
from torchgguf.container import GGUFError, edit_metadata, open_gguf, undo_unfinished

STRING = [gguf.GGUFValueType.STRING]
# The edits change several sectors, or make the file anew.
EDITS = {
    "in place": {"tokenizer.ggml.tokens": [f"TOKEN {i}" for i in range(300)]},
    "anew": {"tokenizer.chat_template": TEMPLATE},
}
CALLS = ("pwrite", "fsync", "unlink", "replace", "link")


@pytest.fixture
def path(tmp_path):
    """A file of several types."""
    return write_example(tmp_path / "model.gguf")


def edit_and_die(path, values, call, count):
    """Edit in a process of its own that is killed in place of the `count`-th system call of a kind."""
    program = f"""
        import os, signal, sys
        from torchgguf.container import edit_metadata
        real, calls = os.{call}, 0
        def deadly(*args, **options):
            global calls
            calls += 1
            if calls == {count}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        os.{call} = deadly
        edit_metadata({str(path)!r}, {values!r})
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode


@pytest.mark.parametrize("values", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("call", CALLS)
def test_a_process_killed_at_any_step_loses_nothing(path, values, call):
    content = path.read_bytes()
    old = contents(path)
    new = {**old[0], **{key: (old[0][key][0], value) for key, value in values.items()}}, old[1]
    for count in range(1, 20):
        path.write_bytes(content)
        code = edit_and_die(path, values, call, count)
        if path.read_bytes()[:8] == b"EDITGGUF":
            with pytest.raises(
                GGUFError, match="unfinished edit of its metadata; if no process is editing it now"
            ):
                open_gguf(path)
            assert undo_unfinished(path)
            assert path.read_bytes() == content
        assert contents(path) in (old, new)
        assert not undo_unfinished(path)
        litter = [other for other in path.parent.iterdir() if other != path]
        # To replace a file, its heir needs a name of its own for the moment before.
        assert not litter or (call == "replace" and [other.name[:11] for other in litter] == [".torchgguf-"])
        for other in litter:
            other.unlink()
        if code != -signal.SIGKILL:
            assert code == 0
            assert contents(path) == new
            return
    pytest.fail("it never came to an end")


def test_an_exception_in_the_middle_restores_the_file(path, monkeypatch):
    content, real, calls = path.read_bytes(), os.pwrite, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(5, "Input/output error")
        return real(*args)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(OSError, match="Input/output error"):
        edit_metadata(path, EDITS["in place"])
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_edit_goes_on_where_another_died(path):
    assert edit_and_die(path, EDITS["in place"], "pwrite", 3) == -signal.SIGKILL
    edit_metadata(path, {"general.name": "after"})
    fields, tensors = contents(path)
    assert fields["general.name"] == (STRING, "after")
    assert fields["tokenizer.ggml.tokens"][1][0] == "token 0"
    assert len(tensors) == 2
    assert list(path.parent.iterdir()) == [path]


def test_what_restores_the_file_is_not_used_for_another(path, tmp_path):
    assert edit_and_die(path, EDITS["in place"], "pwrite", 3) == -signal.SIGKILL
    undo = tmp_path / "model.gguf.undo"
    kept = undo.read_bytes()
    undo.write_bytes(kept[:-1])
    with pytest.raises(GGUFError, match=r"model\.gguf\.undo: is broken, or belongs to another file"):
        undo_unfinished(path)
    undo.unlink()
    with pytest.raises(GGUFError, match=r"model\.gguf\.undo with the old ones is missing"):
        undo_unfinished(path)
    undo.write_bytes(kept)
    path.write_bytes(b"GGUF, downloaded again")
    assert not undo_unfinished(path)
    assert path.read_bytes() == b"GGUF, downloaded again"
    assert not undo.exists()


@pytest.mark.parametrize("values", EDITS.values(), ids=EDITS)
def test_two_cannot_edit_at_once(path, values):
    def meanwhile(done, total):
        with pytest.raises(GGUFError, match="another process is editing its metadata"):
            edit_metadata(path, values)

    assert not edit_metadata(path, {"general.author": "first"}, progress=meanwhile).in_place
    fields, _ = contents(path)
    assert fields["general.author"] == (STRING, "first")
    assert fields["tokenizer.ggml.tokens"][1][0] == "token 0"


def test_nothing_is_lost_where_many_edit(path):
    """In place and anew, which give the tensors another place, by turns."""
    fields, tensors = contents(path)
    values = {f"x.{i}": "x" * (10 + 50 * i) for i in range(16)}

    def edit(key):
        while True:
            try:
                return edit_metadata(path, {key: values[key]}, room=200)
            except GGUFError as error:
                assert re.search("is editing its metadata|has just replaced it", str(error))
                time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(edit, values))
    assert {edited.in_place for edited in done} == {True, False}
    assert contents(path) == (fields | {key: (STRING, value) for key, value in values.items()}, tensors)
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_file_as_it_was(path):
    content = path.read_bytes()
    program = f"""
        import resource
        from torchgguf.container import *
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            edit_metadata({str(path)!r}, {EDITS["anew"]!r})
        except GGUFError as error:
            print(error)
        try:
            edit_metadata({str(path)!r}, {EDITS["in place"]!r})
        except OSError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert "writing failed: File too large" in first
    assert "File too large" in second
    assert "model.gguf" in second
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
