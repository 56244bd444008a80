"""The tests are laid out as the package is, and nothing outside them needs them."""

import re

from tests.support import ROOT

PACKAGE = ROOT / "src" / "torchgguf"


def test_each_folder_of_the_package_has_its_tests():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {"container", "models", "tokenization"} <= folders
    missing = {name for name in folders if not [*(ROOT / "tests" / name).glob("test_*.py")]}
    assert not missing


def test_nothing_imports_tests_but_tests():
    files = [
        path for name in ("src", "scripts", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")
    ]
    assert len(files) > 100
    assert not [
        path for path in files if re.search(r"^\s*(from|import) tests\b", path.read_text(), re.MULTILINE)
    ]
