"""The selections of `make quick` and `make test-oldest`, as pytest makes them of a file of tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

CASES = """
import pytest

@pytest.mark.parametrize("n", range(9))
def test_cases(n): ...

@pytest.mark.parametrize("n", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_one_is_slow(n): assert n

@pytest.mark.slow
def test_slow(): assert False

class TestGroup:
    def test_alone(self): ...
"""
PEERS = """
def test_with_a_peer():
    import transformers

def test_without(): ...
"""


LIBRARY = """
def needs_a_peer():
    import transformers
"""
OF_THE_LIBRARY = """
import importlib
import library
import pytest

def test_the_library_needs_a_peer():
    with pytest.raises(ModuleNotFoundError):
        library.needs_a_peer()

def test_with_a_peer_by_name():
    importlib.import_module("transformers.utils")
"""
WITHOUT_TRANSFORMERS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "transformers":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(1, Absent())
"""


def run(plugin: str, folder: Path, text: str) -> str:
    """Return what pytest prints about a file with `text`."""
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_file.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: as in pyproject.toml\n")
    command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", "-rA", folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_quick_runs_one_test_of_each_file_that_is_not_slow(tmp_path: Path) -> None:
    (tmp_path / "test_another.py").write_text(CASES)
    (tmp_path / "test_all_slow.py").write_text(
        "import pytest\npytestmark = pytest.mark.slow\ndef test(): ...\n"
    )
    first, again = (run("tests.quick", tmp_path, CASES) for _ in range(2))
    assert "2 passed, 25 deselected" in first
    (chosen,) = re.findall(r"^PASSED (tests/test_file\.py::.*)$", first, re.MULTILINE)
    assert f"PASSED {chosen}\n" in again


def test_oldest_skips_what_imports_transformers(tmp_path: Path) -> None:
    assert "1 passed, 1 skipped" in run("tests.oldest", tmp_path, PEERS)
    (tmp_path / "tests" / "test_whole.py").write_text("import transformers")
    assert "1 passed, 2 skipped" in run("tests.oldest", tmp_path, PEERS)


def test_oldest_fails_where_the_package_imports_transformers(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(WITHOUT_TRANSFORMERS)
    (tmp_path / "library.py").write_text(LIBRARY)
    assert "1 passed, 1 skipped" in run("tests.oldest", tmp_path, OF_THE_LIBRARY)
