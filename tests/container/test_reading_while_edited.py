"""Readers see the metadata of one moment, however often a writer edits them in place meanwhile."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from torchgguf.container import GGUFError, open_gguf, write_gguf
from torchgguf.container.layout import UNFINISHED_MAGIC

TOKENS = 4000


def values(letter: str) -> dict[str, object]:
    """Metadata that all change together: a header of several pages."""
    return {"general.name": letter, "tokenizer.ggml.tokens": [letter * 40] * TOKENS, "z": letter}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    write_gguf(path, {"general.architecture": "llama", **values("a")}, {"w": torch.ones(8)})
    return path


@pytest.fixture
def writer(path: Path):
    """A process that edits the file without end."""
    program = f"""
        from torchgguf.container import edit_metadata
        count = 0
        while True:
            letter = "ab"[count % 2]
            edited = edit_metadata(
                {str(path)!r},
                {{"general.name": letter, "tokenizer.ggml.tokens": [letter * 40] * {TOKENS}, "z": letter}},
            )
            assert edited.in_place
            count += 1
            if count == 2:
                print("editing", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "editing\n"
    yield process
    process.kill()
    process.communicate()


def test_no_reader_sees_half_an_edit(path, writer):
    seen = {"a": 0, "b": 0}
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        metadata = open_gguf(path).metadata
        letter = str(metadata["general.name"])
        assert metadata["z"] == letter
        assert metadata["tokenizer.ggml.tokens"] == [letter * 40] * TOKENS
        seen[letter] += 1
    assert min(seen.values()) > 10, seen  # it was edited meanwhile
    assert writer.poll() is None


def test_an_edit_that_nobody_will_finish_is_told_at_once(path):
    with path.open("r+b") as file:
        file.write(UNFINISHED_MAGIC)
    started = time.monotonic()
    with pytest.raises(GGUFError, match="an unfinished edit of its metadata"):
        open_gguf(path)
    assert time.monotonic() - started < 2
