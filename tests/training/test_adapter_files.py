"""Adapters as files beside PEFT, llama.cpp's converter of adapters, and its runtime."""

import pytest
import torch
from torch.testing import assert_close

from tests.peers.llama_cpp import convert_adapter as their_conversion
from tests.support import LLAMA_CPP, LLAMA_CPP_LORA
from tests.training.adapting import EXPERTS, IDS, TARGETS, Adapted, publish
from torchgguf import AutoModelForCausalLM, open_gguf
from torchgguf.training.adapters import convert_adapter, load_adapter

pytestmark = pytest.mark.skipif(
    not (LLAMA_CPP.exists() and LLAMA_CPP_LORA.exists()),
    reason="needs fetch_models.py llama.cpp llama.cpp-lora",
)
CLOSE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module", params=list(TARGETS))
def case(request, tmp_path_factory) -> tuple[str, Adapted]:
    name = request.param
    return name, publish(name, tmp_path_factory.mktemp(name), **TARGETS[name])


@pytest.fixture(scope="module", params=list(EXPERTS))
def experts(request, tmp_path_factory) -> Adapted:
    return publish(request.param, tmp_path_factory.mktemp(request.param), **EXPERTS[request.param])


def test_converted_as_by_llama_cpp(case, tmp_path):
    _, files = case
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    convert_adapter(files.adapter, ours, files.file)
    their_conversion(files.adapter, files.folder, theirs)
    with open_gguf(ours) as found, open_gguf(theirs) as expected:
        assert found.tensors.keys() == expected.tensors.keys()
        for name, info in expected.tensors.items():
            assert found.tensors[name].shape == info.shape
            assert found.tensors[name].type == info.type
            assert torch.equal(found[name], expected[name]), name
        for key in ("general.architecture", "general.type", "adapter.type", "adapter.lora.alpha"):
            assert found.metadata[key] == expected.metadata[key]
            assert found.metadata.types[key] == expected.metadata.types[key]


@torch.no_grad()
def test_logits_of_peft(case, tmp_path):
    """From PEFT's folder and from a GGUF file, with packed layers and plain ones."""
    _, files = case
    convert_adapter(files.adapter, tmp_path / "adapter.gguf", files.file)
    for place in (files.adapter, tmp_path / "adapter.gguf"):
        model = AutoModelForCausalLM.from_pretrained(files.file)
        load_adapter(model, place)
        assert_close(model(IDS).logits, files.logits, **CLOSE)
    with open_gguf(tmp_path / "adapter.gguf") as file:
        assert file.metadata["adapter.lora.alpha"] == 6.0
