"""Adapters as files beside PEFT, llama.cpp's converter of adapters, and its runtime."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.models.tiny import CASES, reference
from tests.peers.llama_cpp import convert_adapter as their_conversion, greedy_text
from tests.support import LLAMA_CPP, LLAMA_CPP_LORA
from tests.training.adapting import EXPERTS, IDS, TARGETS, Adapted, publish
from torchgguf import AutoModelForCausalLM, AutoTokenizer, open_gguf
from torchgguf.training.adapters import convert_adapter, load_adapter, save_adapter
from torchgguf.training.lora import add_lora, set_adapters
from torchgguf.training.merging import merge_into_gguf

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
    name, files = case
    if name == "gpt2":
        pytest.skip("llama.cpp's converter transposes both matrices, which PEFT does not store transposed")
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


@torch.no_grad()
def test_saved_for_peft(case, tmp_path):
    """What was loaded from a GGUF file is saved, and PEFT loads it into transformers' model."""
    name, files = case
    convert_adapter(files.adapter, tmp_path / "adapter.gguf", files.file)
    model = AutoModelForCausalLM.from_pretrained(files.file)
    load_adapter(model, tmp_path / "adapter.gguf", "mine")
    save_adapter(model, tmp_path / "saved", "mine")
    convert_adapter(tmp_path / "adapter.gguf", tmp_path / "converted", files.file)
    for folder in ("saved", "converted"):
        theirs = PeftModel.from_pretrained(reference(CASES[name]), tmp_path / folder).eval()
        assert_close(theirs(input_ids=IDS).logits, files.logits, **CLOSE)
    save_adapter(model, tmp_path / "saved.gguf", "mine")
    with open_gguf(tmp_path / "saved.gguf") as saved, open_gguf(tmp_path / "adapter.gguf") as adapter:
        assert saved.tensors.keys() == adapter.tensors.keys()
        assert all(torch.equal(saved[each], adapter[each]) for each in saved)


def test_llama_cpp_says_the_same(case, tmp_path):
    """Beside another adapter, with factors."""
    _, files = case
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    convert_adapter(files.adapter, first, files.file)
    model = AutoModelForCausalLM.from_pretrained(files.file)
    tokenizer = AutoTokenizer.from_pretrained(files.file)
    add_lora(model, 2, 4)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.15)
    save_adapter(model, second)
    load_adapter(model, first, "first")
    set_adapters(model, {"default": 0.5, "first": 0.75})
    prompt = tokenizer("the program is")["input_ids"]
    generated = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
    text = greedy_text(files.file, prompt, 12, adapters={first: 0.75, second: 0.5})
    assert tokenizer.decode(generated, skip_special_tokens=True).strip() == text.strip()
    assert text.strip() != greedy_text(files.file, prompt, 12).strip()


@torch.no_grad()
def test_experts(experts, tmp_path):
    """PEFT's adapters of experts, which its files order by rank and by expert, merged into a file."""
    merge_into_gguf(experts.file, experts.adapter, tmp_path / "merged.gguf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged.gguf")
    assert_close(model(IDS).logits, experts.logits, **CLOSE)
    convert_adapter(experts.adapter, tmp_path / "adapter.gguf", experts.file)
    convert_adapter(tmp_path / "adapter.gguf", tmp_path / "back", experts.file)
    before, after = (
        load_file(each / "adapter_model.safetensors") for each in (experts.adapter, tmp_path / "back")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    prompt = AutoTokenizer.from_pretrained(experts.file)("you may copy")["input_ids"]
    text = greedy_text(experts.file, prompt, 8, adapters={tmp_path / "adapter.gguf": 1.0})
    assert text == greedy_text(tmp_path / "merged.gguf", prompt, 8)
    assert text != greedy_text(experts.file, prompt, 8)
