"""A plugin of pytest for `make test-oldest`: skip the tests of what is not installed there.

Of all versions of transformers, the tests follow the newest alone, and it needs newer packages.
"""

import sys
from importlib.abc import MetaPathFinder

import pytest

ABSENT = ("transformers", "matplotlib")


class Skipping(MetaPathFinder):
    """Skips the file, or the test, that imports one of ABSENT."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Skip for a name of ABSENT; leave all others to Python."""
        if name in ABSENT:
            pytest.skip(f"{name} is not installed", allow_module_level=True)


sys.meta_path.insert(0, Skipping())
