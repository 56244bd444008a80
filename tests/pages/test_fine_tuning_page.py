"""docs/fine-tuning.md: its snippets run one after the other, and do what it states."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import torchgguf
from tests.conversion.folders import publish
from tests.pages.pages import snippets
from tests.support import ROOT
from torchgguf.conversion import convert_to_gguf

PAGE = ROOT / "docs" / "fine-tuning.md"
IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the snippets ran, and what they named."""
    folder, before = tmp_path_factory.mktemp("fine-tuning"), Path.cwd()
    publish("llama", folder / "hf")
    convert_to_gguf(folder / "hf", folder / "model.gguf", quantization="Q8_0")
    names: dict = {}
    os.chdir(folder)
    try:
        for code in snippets(PAGE, "python"):
            exec(compile(code, str(PAGE), "exec"), names)
    finally:
        os.chdir(before)
    return folder, names


def weights(path) -> torch.Tensor:
    model = torchgguf.AutoModelForCausalLM.from_pretrained(path, dequantize=True)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_training_changes_the_model(ran):
    folder, _ = ran
    before = weights(folder / "model.gguf")
    assert_close(weights(folder / "out" / "last"), weights(folder / "tuned.gguf"), atol=0.02, rtol=0)
    assert not torch.equal(weights(folder / "out" / "last"), before)
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * 3  # two matrices for each of seven layers in three
    assert all(value.any() for value in adapter.values())  # untrained, half of them are zero
    assert_close(weights(folder / "merged.gguf"), before, atol=0.02, rtol=0)


def test_the_vocabulary_comes_along(ran):
    folder, names = ran
    for name in ("tuned.gguf", "merged.gguf"):
        assert torchgguf.AutoTokenizer.from_pretrained(folder / name).get_vocab() == names["tok"].get_vocab()
    with torchgguf.open_gguf(folder / "resized.gguf") as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == len(names["tok"]) + 8
