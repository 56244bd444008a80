"""Some modules of a packed model are unpacked: those are trained, the others keep their bytes."""

import pytest
import torch

import torchgguf
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.nn import PackedLayer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def packed_model(name, folder):
    counterpart(reference(CASES[name])).save_gguf(folder / "x.gguf", quantization="Q8_0")
    return torchgguf.AutoModelForCausalLM.from_pretrained(folder / "x.gguf")


def packed_paths(model):
    return {path for path, layer in model.named_modules() if isinstance(layer, PackedLayer)}


@pytest.mark.parametrize(
    ("modules", "unpacked"),
    [
        (["layers.1"], lambda path: ".layers.1." in path),
        ("model.layers.*.mlp", lambda path: ".mlp." in path),
        (["q_proj", "lm_head"], lambda path: path.endswith(("q_proj", "lm_head"))),
        (["layers.0.self_attn.*_proj"], lambda path: ".0.self_attn." in path),
    ],
)
def test_modules_are_trained(modules, unpacked, tmp_path, caplog):
    model = packed_model("llama", tmp_path)
    every = packed_paths(model)
    with torch.no_grad():
        expected = model(IDS).logits
    assert model.dequantize(modules=modules) is model
    assert every - packed_paths(model) == {path for path in every if unpacked(path)}
    loss = model.train()(IDS, labels=IDS, use_cache=False)
    torch.testing.assert_close(loss.logits, expected, atol=1e-3, rtol=0)
    loss.loss.backward()
    assert all(p.grad.any() for n, p in model.named_parameters() if p.requires_grad and p.dim() > 1)
    assert not caplog.records


def test_a_tied_head_follows(tmp_path):
    model = packed_model("llama-tied", tmp_path).dequantize(modules=["embed_tokens"])
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.lm_head.weight.requires_grad
    assert model.tied_head is model.lm_head
    model.save_gguf(tmp_path / "y.gguf")
    again = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "y.gguf")
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits, atol=1e-3, rtol=0)


def test_mistakes_are_named(tmp_path):
    model = packed_model("llama", tmp_path)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no module 'layers\.7'"):
        model.dequantize(modules=["layers.7"])
    with pytest.raises(
        ValueError, match=r"must be of the model's dtype, torch\.float32, got torch\.bfloat16"
    ):
        model.dequantize(torch.bfloat16, modules=["layers.1"])
