"""What a newcomer tries first is true: the demo, and the README's lines of Python."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, SMOLLM2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SMOLLM2.exists(), reason="SmolLM2 has not been fetched"),
]


def test_demo_writes_the_very_same_file() -> None:
    command = [sys.executable, ROOT / "scripts" / "demo.py"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "identical: the very same file" in result.stdout
    source, copy = re.findall(r"^  (?:source|copy) +([0-9a-f]{64})$", result.stdout, re.MULTILINE)
    assert source == copy
    assert re.search(r"\d+ tokens, \d+ tokens/s", result.stdout)


def test_lines_of_the_readme_run(tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines, paths = re.subn(r'path = ".*"', f"path = {str(SMOLLM2)!r}", lines)
    lines, lengths = re.subn(r"max_new_tokens=\d+", "max_new_tokens=4", lines)
    assert (paths, lengths) == (1, 1)
    subprocess.run([sys.executable, "-c", lines], check=True, cwd=tmp_path)
    assert (tmp_path / "again.gguf").read_bytes() == SMOLLM2.read_bytes()
