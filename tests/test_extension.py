"""The native part may be missing; where it is there and broken, everybody hears of it."""

import subprocess
import sys

import pytest

from tests.support import ROOT


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_without_it_the_package_works():
    program = """
import sys
sys.modules["torchgguf._native"] = None
from torchgguf._extension import native
from torchgguf import container, quants
assert native is None
"""
    assert run(program).stderr == ""


IMPORT_FROM_A_FILE = """
import sys
from importlib.util import spec_from_file_location

class Finder:
    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, sys.argv[1]) if name == "torchgguf._native" else None

sys.meta_path.insert(0, Finder())
import torchgguf.{layer}
"""


@pytest.mark.parametrize("layer", ["container", "quants"])
@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("_native.so", "no library", "ImportError"),
        ("_native.py", "import a_library_that_is_missing", "No module named 'a_library_that_is_missing'"),
        ("_native.py", "def isa(): ...", "AttributeError"),  # built from older sources
    ],
    ids=["no library", "a library that it needs is missing", "stale"],
)
def test_a_broken_one_is_an_error(tmp_path, layer, file, content, error):
    (tmp_path / file).write_text(content)
    assert error in run(IMPORT_FROM_A_FILE.format(layer=layer), str(tmp_path / file)).stderr
