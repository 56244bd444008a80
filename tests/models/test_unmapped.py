"""A model whose file is read, not mapped, works on when the file becomes shorter."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.conversion.folders import publish
from torchgguf import AutoModelForCausalLM, pipeline
from torchgguf.container import GGUFError
from torchgguf.conversion import convert_to_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, `hf`, and a GGUF file of it, `tiny.gguf`."""
    folder = tmp_path_factory.mktemp("unmapped")
    convert_to_gguf(publish("llama", folder / "hf"), folder / "tiny.gguf", quantization="Q8_0")
    return folder


@pytest.mark.parametrize(
    "options", [{"mmap": False}, {"disable_mmap": True}, {"mmap": False, "dequantize": True}]
)
def test_a_model(folder, tmp_path, options):
    path, ids = tmp_path / "x.gguf", torch.arange(8)[None]
    shutil.copy(folder / "tiny.gguf", path)
    expected = AutoModelForCausalLM.from_pretrained(
        folder / "tiny.gguf", dequantize=options.get("dequantize", False)
    )
    model = AutoModelForCausalLM.from_pretrained(path, **options)
    os.truncate(path, 0)
    assert torch.equal(model(ids).logits, expected(ids).logits)


def test_a_pipeline(folder):
    answers = [
        pipeline("text-generation", str(folder / "tiny.gguf"), device="cpu", model_kwargs=options)(
            "a", max_new_tokens=3, do_sample=False
        )
        for options in ({}, {"mmap": False})
    ]
    assert answers[0] == answers[1]


def test_a_file_that_is_cut_is_an_error(folder, tmp_path):
    path = tmp_path / "x.gguf"
    shutil.copy(folder / "tiny.gguf", path)
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(GGUFError, match="is it incomplete"):
        AutoModelForCausalLM.from_pretrained(path, mmap=False)


def test_checkpoints_are_mapped(folder):
    with pytest.raises(ValueError, match=r"mmap=False \(disable_mmap=True\) is for GGUF files"):
        AutoModelForCausalLM.from_pretrained(folder / "hf", disable_mmap=True)
    assert AutoModelForCausalLM.from_pretrained(folder / "hf", disable_mmap=False) is not None
