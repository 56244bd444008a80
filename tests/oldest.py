"""A plugin of pytest for `make test-oldest`: skip the tests of what is not installed there.

Of all versions of transformers, the tests follow the newest alone, and it needs newer packages. The package
itself must do without: where it imports transformers, it fails as for a user.
"""

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

# transformers, and what needs it or goes with it.
ABSENT = ("accelerate", "peft", "transformers")


class Skipping(MetaPathFinder):
    """Skips the file, or the test, that imports one of ABSENT itself."""

    def __init__(self, tests: Path) -> None:
        self.tests = tests

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Skip for an import of one of ABSENT in a file of the tests; leave all others to Python."""
        if name in ABSENT and self.tests in _importing_file().parents:
            pytest.skip(f"{name} is not installed", allow_module_level=True)


def _importing_file() -> Path:
    """Return the file of the innermost frame that is neither here nor of the import system."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ or "importlib" in frame.f_code.co_filename:
        assert frame.f_back is not None
        frame = frame.f_back
    return Path(frame.f_code.co_filename)


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Skip from the first file of tests on."""
    sys.meta_path.insert(0, Skipping(early_config.rootpath / "tests"))
