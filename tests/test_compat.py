"""Options of transformers that are accepted where they ask for nothing."""

from typing import Any

import pytest

from torchgguf.compat import rename_option, split_options

NEUTRAL = {"proxies": (None,), "use_fast": (None, True)}


def test_options_are_sorted() -> None:
    options = {"token": "x", "use_fast": True, "pre": "a", "revision": "y", "proxies": None, "other": 5}
    hub, own, unknown = split_options(options, NEUTRAL, ("revision", "token"), {"pre", "token"})
    assert hub == {"token": "x", "revision": "y"}
    assert own == {"pre": "a"}
    assert unknown == {"other": 5}
    assert split_options({"use_fast": None, "b": 1}, NEUTRAL) == ({"b": 1},)


def test_a_neutral_option_that_asks_for_something() -> None:
    with pytest.raises(ValueError, match=r"^use_fast=False is not supported$"):
        split_options({"use_fast": False}, NEUTRAL)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"torch_dtype": 1}, {"dtype": 1}),
        ({"torch_dtype": 1, "dtype": None}, {"dtype": 1}),
        ({"torch_dtype": 1, "dtype": 2}, {"dtype": 2}),
        ({"torch_dtype": None}, {}),
        ({}, {}),
    ],
    ids=str,
)
def test_deprecated_names(options: dict[str, Any], expected: dict[str, Any]) -> None:
    rename_option(options, "torch_dtype", "dtype")
    assert options == expected
