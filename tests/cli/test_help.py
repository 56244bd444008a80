"""Help is readable in narrow terminals: all options in full, no names of Python's types."""

import os
import re

import pytest

from torchgguf.cli import COMMANDS

PYTHON = re.compile(r"<[a-z]|\b(str|bool|int|float|INTEGER|FLOAT|Optional)\b|None")


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(torchgguf, command, columns):
    words = [command] if command else []
    result = torchgguf(*words, "--help", env=os.environ | {"COLUMNS": str(columns)})
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) < columns
    assert not PYTHON.search(result.stdout)
    assert "…" not in result.stdout.replace("OUT-00001-of-….", "")
    assert "  -h, --help" in result.stdout
    if command == "run":
        assert "-n, --max-new-tokens N" in result.stdout and "--repetition-penalty X" in result.stdout
