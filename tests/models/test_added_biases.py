"""Biases that a file has, though models of its architecture have none: llama.cpp adds them, and so do we."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.case import Case
from tests.models.files import edited
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import next_log_probabilities
from tests.peers.vocabularies import add_tokenizer
from torchgguf import AutoModelForCausalLM, AutoTokenizer, GGUFError

PARTS = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v"}
IDS = torch.arange(24)[None] * 7 % 400


@pytest.fixture(scope="module")
def biased():
    """A Qwen3 of transformers with biases on queries, keys and values."""
    model = reference(Case("Qwen3", {**CASES["qwen3"].config, "attention_bias": True}))
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.data.zero_()
    return model


@pytest.fixture(scope="module")
def file(biased, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    add_tokenizer(folder, "qwen3")
    states = biased.state_dict()
    plain = counterpart(reference(CASES["qwen3"]))
    plain.load_state_dict({name: x for name, x in states.items() if not name.endswith("bias")})
    plain.save_gguf(folder / "plain.gguf", tokenizer=AutoTokenizer.from_pretrained(folder, pre="qwen2"))
    biases = {
        f"blk.{i}.{part}.bias": states[f"model.layers.{i}.self_attn.{name}.bias"]
        for i in range(3)
        for name, part in PARTS.items()
    }
    return edited(folder / "plain.gguf", folder / "biased.gguf", tensors=biases)


@pytest.fixture(scope="module", params=["packed", "plain"])
def model(request, file):
    return AutoModelForCausalLM.from_pretrained(file, dequantize=request.param == "plain")


@torch.no_grad()
def test_they_are_added(biased, model):
    assert_close(model(IDS).logits, biased(IDS).logits, atol=1e-4, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_llama_cpp_adds_them(file, model):
    (theirs,) = next_log_probabilities(file, [IDS[0].tolist()])
    assert_close(model(IDS).logits[0, -1].log_softmax(-1), theirs, atol=2e-3, rtol=0)


def test_they_are_written_back_and_no_checkpoint_holds_them(file, model, tmp_path):
    model.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(file))
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match=r"do not support model\.layers\.0\.self_attn\.q_proj\.bias"):
        model.save_pretrained(tmp_path / "folder")


@pytest.mark.parametrize("name", ["falconh1", "erniemoe"])
@torch.no_grad()
def test_those_of_outputs_that_llama_cpp_leaves_out_change_nothing(name, tmp_path):
    model = counterpart(reference(CASES[name]))
    model.save_gguf(tmp_path / "plain.gguf")
    biases = {
        f"blk.{i}.attn_output.bias": torch.ones(model.config.hidden_size)
        for i in range(model.config.num_hidden_layers)
    }
    file = edited(tmp_path / "plain.gguf", tmp_path / "biased.gguf", tensors=biases)
    loaded = AutoModelForCausalLM.from_pretrained(file)
    assert_close(loaded(IDS).logits, model(IDS).logits, atol=1e-4, rtol=0)
    loaded.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


def test_of_another_size_they_are_an_error(file, tmp_path):
    path = edited(file, tmp_path / "x.gguf", tensors={"blk.1.attn_q.bias": torch.zeros(7)})
    with pytest.raises(GGUFError, match=r"blk\.1\.attn_q\.bias has shape \(7,\), expected \(128,\)"):
        AutoModelForCausalLM.from_pretrained(path)
