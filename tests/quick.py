"""A plugin of pytest for `make quick`: run one case of one test of each file, and none marked as slow.

Checksums of their names decide which: the same tests run each time, and a new test rarely changes which.
"""

from collections.abc import Iterable
from itertools import groupby
from zlib import crc32

import pytest

TESTS_OF_A_FILE = 1


def _function(item: pytest.Item) -> str:
    """Return the name of the test function that `item` is a case of, with its file."""
    return item.nodeid.partition("[")[0]


def _few(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return one case each of the chosen functions among `items`, which are of one file."""
    cases = {name: min(group, key=_checksum) for name, group in groupby(items, _function)}
    chosen = sorted(cases, key=lambda name: crc32(name.encode()))[:TESTS_OF_A_FILE]
    return [case for name, case in cases.items() if name in chosen]


def _checksum(item: pytest.Item) -> int:
    return crc32(item.nodeid.encode())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect all but the chosen cases."""
    quick = (item for item in items if not item.get_closest_marker("slow"))
    chosen = [item for _, group in groupby(quick, lambda item: item.path) for item in _few(group)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
