"""Options of transformers that are accepted where they ask for nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conversion.folders import publish
from torchgguf import AutoConfig, AutoModelForCausalLM, pipeline
from torchgguf.compat import rename_option, split_options


def pipelined(folder: Path, **options: Any) -> Any:
    return pipeline("text-generation", folder, **options)


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


def test_what_is_explained_is_said_where_it_was_asked_for() -> None:
    neutral = {"trust_remote_code": (None, True, False)}
    with pytest.warns(
        UserWarning, match=r"^trust_remote_code=True: no code of a repository is ever run$"
    ) as said:
        assert split_options({"trust_remote_code": True, "a": 1}, neutral) == ({"a": 1},)
    assert [warning.filename for warning in said] == [__file__]
    assert split_options({"trust_remote_code": False}, neutral) == ({},)


@pytest.mark.parametrize(
    "load", [AutoConfig.from_pretrained, AutoModelForCausalLM.from_pretrained, pipelined]
)
def test_remote_code_is_never_run(load: Any, tmp_path: Path) -> None:
    """Everybody's scripts ask for it: one warning, at their line."""
    folder = publish("llama", tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit")
    with pytest.warns(UserWarning, match="no code of a repository is ever run") as said:
        load(folder, trust_remote_code=True)
    assert [warning.filename for warning in said] == [__file__]
