"""A plugin of pytest: run one case of each test function, and none that is marked as slow.

Which case that is depends on the names alone: it is the same in every run, and functions with the same
parameters run with different ones.
"""

from itertools import groupby
from zlib import crc32

import pytest


def _function(item: pytest.Item) -> str:
    """Return the name of the test function that `item` is a case of, with its file."""
    return item.nodeid.partition("[")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect all but one case of each function."""
    cases = (item for item in items if not item.get_closest_marker("slow"))
    chosen = []
    for name, group in groupby(cases, _function):
        same = list(group)
        chosen.append(same[crc32(name.encode()) % len(same)])
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
