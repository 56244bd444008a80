"""What fails or is killed leaves all as it was, and nothing that a second try would stumble over."""

import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conversion.folders import publish
from torchgguf.container import GGUFError
from torchgguf.conversion.from_checkpoint import convert_to_gguf
from torchgguf.conversion.to_checkpoint import convert_to_checkpoint
from torchgguf.models.io.checkpoint import Checkpoint


class Way(NamedTuple):
    """A conversion: of what, to what, how it fails, and how to kill it in the middle."""

    source: str
    target: str
    convert: Callable[[Path, Path], object]
    error: type[Exception]
    killing: str


# A process ends itself by the signal that it cannot catch: at a time of its own choice, or when it asks the
# system for something for the n-th time.
KILL = """
import os, signal, sys
source, target = sys.argv[1:3]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_at(event, count):
    left = [None] * count
    def watch(name, arguments):
        if name == event and left.pop() is None and not left:
            die()
    sys.addaudithook(watch)
"""
HALF_WRITTEN = """
from torchgguf.conversion.from_checkpoint import convert_to_gguf
convert_to_gguf(source, target, progress=lambda done, total: die() if 2 * done > total else None)
"""
# Some of its files have the names that they are to have, the others none.
HALF_NAMED = """
from torchgguf.conversion.to_checkpoint import convert_to_checkpoint
die_at("os.link", 3)
convert_to_checkpoint(source, target)
"""
ALL_WRITTEN = HALF_NAMED.replace("3", "1")
WAYS = {
    "to a file": Way("llama", "x.gguf", convert_to_gguf, GGUFError, HALF_WRITTEN),
    "to a folder": Way("llama.gguf", "back", convert_to_checkpoint, OSError, ALL_WRITTEN),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A folder, and the file that it becomes."""
    place = tmp_path_factory.mktemp("originals")
    convert_to_gguf(publish("llama", place / "llama"), place / "llama.gguf")
    return place


def contents(place: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit on the size of files, which ends a write as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def kill(code: str, source: Path, target: Path) -> None:
    """Run a conversion that kills itself."""
    done = subprocess.run([sys.executable, "-c", KILL + code, source, target], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_full_disk(originals, tmp_path, way, replacing):
    source, target = originals / way.source, tmp_path / way.target
    if replacing:
        way.convert(source, target)
    before = contents(tmp_path)
    with files_of_at_most(300_000), pytest.raises(way.error, match=r"too large|writing failed") as caught:
        way.convert(source, target)
    assert str(target) in str(caught.value)
    assert contents(tmp_path) == before
    way.convert(source, target)


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_killed_process(originals, tmp_path, way, replacing):
    source, target = originals / way.source, tmp_path / way.target
    if replacing:
        way.convert(source, target)
    before = contents(tmp_path)
    kill(way.killing, source, target)
    assert contents(tmp_path) == before
    way.convert(source, target)


def test_an_interrupt(originals, tmp_path):
    """Ctrl-C, at any time."""

    def interrupt(done: int, total: int) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_to_gguf(originals / "llama", tmp_path / "x.gguf", progress=interrupt)
    assert not any(tmp_path.iterdir())


def test_a_new_folder_is_none_before_it_is_whole(originals, tmp_path):
    """Its config, without which there is no checkpoint, gets its name last."""
    kill(HALF_NAMED, originals / "llama.gguf", tmp_path / "back")
    assert contents(tmp_path) and Path("back/config.json") not in contents(tmp_path)
    convert_to_checkpoint(originals / "llama.gguf", tmp_path / "back")
    expected = load_file(originals / "llama" / "model.safetensors")
    actual = load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.parametrize("change", [{"x": torch.ones(3)}, {"y": torch.ones(2)}])
def test_weights_that_are_replaced_while_they_are_read(tmp_path, change):
    """Files are opened more than once: a tensor of another shape, or none, is not taken for the one found."""
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(2)}, file)
    tensors = Checkpoint(tmp_path).tensors(passing=True)
    save_file(change, tmp_path / "new")
    (tmp_path / "new").rename(file)
    with pytest.raises(ValueError, match=r"model\.safetensors has changed while it was read"):
        tensors["x"].load()
