"""`torchgguf merge` on the command line; what it writes is proven in tests/container/test_splitting.py."""

import re

from tests.support import ROOT

GOLDENS = ROOT / "tests" / "data" / "gguf_split"
MODEL = GOLDENS / "model.gguf"


def test_one_file_of_several(torchgguf, tmp_path):
    (tmp_path / "x.gguf").write_text("old")
    result = torchgguf("merge", GOLDENS / "tensors-00001-of-00003.gguf", tmp_path / "x.gguf")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "x.gguf").read_bytes() == MODEL.read_bytes()


def test_a_file_is_missing(torchgguf, tmp_path):
    first = tmp_path / "tensors-00001-of-00003.gguf"
    first.write_bytes((GOLDENS / first.name).read_bytes())
    (tmp_path / "x.gguf").write_text("old")
    result = torchgguf("merge", first, tmp_path / "x.gguf")
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*shard 2 of 3 is missing.*\n", result.stderr)
    assert (tmp_path / "x.gguf").read_text() == "old"
