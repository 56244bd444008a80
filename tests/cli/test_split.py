"""`torchgguf split` on the command line; what it writes is proven in tests/container/test_splitting.py."""

import re

import pytest

from tests.peers.hub import Repository, serving
from tests.support import ROOT

GOLDENS = ROOT / "tests" / "data" / "gguf_split"
MODEL = GOLDENS / "model.gguf"


def lines(result):
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_files_are_written_and_told(torchgguf, tmp_path):
    result = torchgguf(
        "split", MODEL, tmp_path / "empty-first", "--max-tensors", 3, "--no-tensor-first-split"
    )
    assert (result.returncode, result.stderr) == (0, "")
    written = sorted(tmp_path.iterdir())
    golden = sorted(GOLDENS.glob("empty-first-*"))
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in golden]
    assert lines(result)[2:] == [f"{written[0]} 0 0", f"{written[1]} 3 628", f"{written[2]} 2 232"]


def test_a_dry_run_writes_nothing(torchgguf, tmp_path):
    result = torchgguf("split", MODEL, tmp_path / "x", "--max-size", "1K", "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert lines(result)[0] == "would be written"
    assert lines(result)[2:] == [f"{tmp_path}/x-00001-of-00001.gguf 5 860"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, code, message",
    [
        ([], 2, "--max-size and --max-tensors"),
        (["--max-size", "1M", "--max-tensors", 2], 2, "--max-size and --max-tensors"),
        (["--max-size", "2 gigs"], 2, "'2 gigs' is not a size such as 500M or 2G"),
        (["--max-size", "0M"], 2, "'0M' is not a size"),
        (["--max-tensors", 0], 2, "--max-tensors"),
        (["--max-size", "100"], 1, r"tensor 'blk.2.weight' has 512 bytes, but the limit of a file is 100"),
    ],
)
def test_wrong_limits(torchgguf, tmp_path, options, code, message):
    result = torchgguf("split", MODEL, tmp_path / "x", *options)
    assert result.returncode == code
    assert re.fullmatch(r"error: .*\n", result.stderr)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["", "/", "/missing/"])
def test_a_folder_is_no_prefix(torchgguf, tmp_path, ending):
    result = torchgguf("split", MODEL, f"{tmp_path}{ending}", "--max-tensors", 2)
    assert result.returncode == 2
    assert re.fullmatch(r"error: .* is a folder: add the beginning of the names.*/model.*\n", result.stderr)
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}-*"))


def test_files_that_are_there_stay(torchgguf, tmp_path):
    (tmp_path / "x-00003-of-00003.gguf").write_text("mine")
    result = torchgguf("split", MODEL, tmp_path / "x", "--max-tensors", 2)
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*x-00003-of-00003\.gguf: exists already.*\n", result.stderr)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_of_a_repository(torchgguf, tmp_path):
    name = "me/model:model.gguf"
    with serving(model=Repository({"main": {"model.gguf": MODEL.read_bytes()}})) as server:
        environment = server.environment(tmp_path / "cache")
        nowhere = torchgguf("split", name, tmp_path / "no" / "x", "--max-tensors", 2, env=environment)
        assert not server.requests
        result = torchgguf("split", name, tmp_path / "tensors", "--max-tensors", 2, env=environment)
    assert re.fullmatch(r"error: cannot write .*no/x: there is no folder .*no\n", nowhere.stderr)
    assert (result.returncode, result.stderr) == (0, "")
    golden = sorted(GOLDENS.glob("tensors-*"))
    written = sorted(tmp_path.glob("tensors-*"))
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in golden]
