"""Adapters and control vectors on the command line; what they compute is proven in tests/training."""

import json
import re

import pytest
import torch

from tests.models.tiny import CASES, reference
from tests.peers.llama_cpp import convert
from tests.support import LLAMA_CPP
from tests.training.adapting import adapted
from torchgguf.training.control_vectors import ControlVector, write_control_vector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there: python scripts/fetch_models.py"
    ),
]
GREEDY = ("--raw", "-n", "8", "-t", "0", "--no-stats")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model with a tokenizer, an adapter of PEFT, and a control vector."""
    place = tmp_path_factory.mktemp("adapters")
    convert({"model": reference(CASES["llama"])}, place, {})
    adapted(reference(CASES["llama"]), target_modules=["q_proj", "down_proj"]).save_pretrained(
        place / "adapter"
    )
    torch.manual_seed(0)
    write_control_vector(
        place / "control.gguf", ControlVector({1: torch.randn(64), 2: torch.randn(64)}, "llama")
    )
    return place


def test_convert_run_and_merge(torchgguf, place, tmp_path):
    """An adapter says the same in both forms, in halves, and in the weights."""
    model, adapter = place / "model.gguf", place / "adapter"
    converted = torchgguf("convert", adapter, tmp_path / "a.gguf", "--base", model)
    assert (converted.returncode, converted.stderr) == (0, "")
    back = torchgguf("convert", tmp_path / "a.gguf", tmp_path / "back", "--base", model)
    assert json.loads((tmp_path / "back" / "adapter_config.json").read_text())["lora_alpha"] == 6
    assert "adapter_model.safetensors" in back.stdout
    merged = torchgguf("merge", model, tmp_path / "merged.gguf", "--lora", tmp_path / "a.gguf")
    assert re.search(r"blk\.\*\.attn_q\.weight +3 +F32 +F32 +1\.000 +1\.000", merged.stdout)
    ways = [
        (model, "--lora", adapter),
        (model, "--lora", f"{adapter}:0.5", "--lora", f"{tmp_path / 'a.gguf'}:0.5"),
        (tmp_path / "merged.gguf",),
    ]
    plain, *answers = (
        torchgguf("run", way[0], "the program", *way[1:], *GREEDY) for way in [(model,), *ways]
    )
    assert {answer.returncode for answer in answers} == {0}
    assert len({answer.stdout for answer in answers}) == 1
    assert answers[0].stdout != plain.stdout


def test_control_vectors(torchgguf, place):
    model, control = place / "model.gguf", place / "control.gguf"
    plain, with_it, without, late = (
        torchgguf("run", model, "the program", *more, *GREEDY)
        for more in (
            (),
            ("--control-vector", f"{control}:2"),
            ("--control-vector", f"{control}:0"),
            ("--control-vector", control, "--control-vector-layers", "2:2"),
        )
    )
    assert with_it.stdout != plain.stdout == without.stdout
    assert late.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "adapter"), r"adapter is an adapter: name its model with --base MODEL"),
        (("convert", "adapter", "out", "--base", "model.gguf"), r"name a \.gguf file to write"),
        (("convert", "adapter", "x.gguf", "--base", "model.gguf", "--pre", "x"), "not for adapters"),
        (("merge", "model.gguf", "x.gguf", "-q", "Q8_0"), "requires --lora"),
        (("run", "model.gguf", "hi", "--control-vector-layers", "1:2"), "requires --control-vector"),
        (
            ("run", "model.gguf", "hi", "--control-vector", "control.gguf", "--control-vector-layers", "3"),
            "FIRST:LAST",
        ),
        (("run", "model.gguf", "hi", "--lora", "model.gguf"), "is not an adapter"),
        (("run", "model.gguf", "hi", "--lora", "gone.gguf:0.5"), r"there is no file .*gone\.gguf"),
        (("run", "model.gguf", "hi", "--control-vector", "model.gguf"), "is not a control vector"),
    ],
    ids=str,
)
def test_wrong_arguments(torchgguf, place, arguments, message):
    named = [place / text if (place / text).exists() or ".gguf" in text else text for text in arguments]
    result = torchgguf(*named)
    assert result.returncode in (1, 2)
    assert re.fullmatch(rf"error: .*{message}.*\n", result.stderr), result.stderr
    assert not (place / "x.gguf").exists()
