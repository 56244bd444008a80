"""`torchgguf merge` on the command line; what it writes is proven in tests/container/test_splitting.py."""

import re

from tests.peers.hub import Repository, serving
from tests.support import ROOT

GOLDENS = ROOT / "tests" / "data" / "gguf_split"
MODEL = GOLDENS / "model.gguf"


def test_one_file_of_several(torchgguf, tmp_path):
    (tmp_path / "x.gguf").write_text("old")
    result = torchgguf("merge", GOLDENS / "tensors-00001-of-00003.gguf", tmp_path / "x.gguf")
    size = f"{MODEL.stat().st_size:,}"
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{tmp_path / 'x.gguf'}: {size} bytes\n"
    assert (tmp_path / "x.gguf").read_bytes() == MODEL.read_bytes()


def test_a_file_is_missing(torchgguf, tmp_path):
    first = tmp_path / "tensors-00001-of-00003.gguf"
    first.write_bytes((GOLDENS / first.name).read_bytes())
    (tmp_path / "x.gguf").write_text("old")
    result = torchgguf("merge", first, tmp_path / "x.gguf")
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*shard 2 of 3 is missing.*\n", result.stderr)
    assert (tmp_path / "x.gguf").read_text() == "old"


def test_files_of_a_repository(torchgguf, tmp_path):
    """All are fetched, whichever is named; a folder that is missing is told of before."""
    parts = {path.name: path.read_bytes() for path in GOLDENS.glob("tensors-*")}
    name, out = "me/parts:tensors-00002-of-00003.gguf", tmp_path / "x.gguf"
    with serving(parts=Repository({"main": parts})) as server:
        environment = server.environment(tmp_path / "cache")
        nowhere = torchgguf("merge", name, tmp_path / "no" / "x.gguf", env=environment)
        assert not server.requests
        result = torchgguf("merge", name, out, env=environment)
    assert re.fullmatch(r"error: cannot write .*no/x\.gguf: there is no folder .*no\n", nowhere.stderr)
    assert (result.returncode, result.stderr) == (0, "")
    assert out.read_bytes() == MODEL.read_bytes()
