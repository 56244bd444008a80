"""Models are pickled, copied, saved by torch and sent to other processes, whatever their activation is."""

import copy
import io
import pickle

import pytest
import torch

from tests.models.tiny import CASES, SIZES, counterpart, reference
from torchgguf.models import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from torchgguf.nn.activations import ACTIVATIONS

IDS = torch.tensor([[5, 6, 7, 8]])


def saved(model):
    """Return what torch.save writes and torch.load reads."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "copy": copy.deepcopy, "torch.save": saved}


@torch.no_grad()
def same(copied, model) -> bool:
    tied = (copied.tied_head is None) == (model.tied_head is None)
    return tied and torch.equal(copied(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gpt2", "bloom", "llama-tied", "llama-llama3", "qwen2moe", "phi-long"])
def test_packed_and_plain(name, way, tmp_path):
    plain = counterpart(reference(CASES[name]))
    assert same(WAYS[way](plain), plain)
    plain.save_gguf(tmp_path / "packed.gguf", quantization="Q8_0")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "packed.gguf")
    again = WAYS[way](packed)
    assert same(again, packed)
    again.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "packed.gguf").read_bytes()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_activation(activation):
    sizes = {**SIZES, "vocab_size": 20, "num_hidden_layers": 1}
    config = AutoConfig.for_model("llama", **sizes, hidden_act=activation)
    model = LlamaForCausalLM(config).eval()
    for way in WAYS.values():
        assert same(way(model), model)
