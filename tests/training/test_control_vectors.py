"""Control vectors beside hooks of transformers' models, and as llama.cpp's generator writes them."""

import gguf
import pytest
import torch
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp_library import steered_logits
from torchgguf.training.control_vectors import (
    ControlVector,
    add_control_vector,
    read_control_vector,
    remove_control_vectors,
    write_control_vector,
)

IDS = torch.tensor([[5, 6, 7, 8]])


def vector(hint: str | None = "llama") -> ControlVector:
    torch.manual_seed(0)
    return ControlVector({1: torch.randn(64), 2: torch.randn(64)}, hint)


@torch.no_grad()
@pytest.mark.parametrize("layers", [None, (2, 2)])
@pytest.mark.parametrize(("name", "path"), [("llama", "model.layers"), ("gpt2", "transformer.h")])
def test_as_by_hooks_of_transformers(name, path, layers):
    theirs = reference(CASES[name])
    ours = counterpart(theirs)
    plain = ours(IDS).logits
    for layer, direction in vector().directions.items():
        if layers is None or layers[0] <= layer <= layers[1]:
            module = theirs.get_submodule(f"{path}.{layer}")
            module.register_forward_hook(lambda module, args, out, d=direction: out + 0.5 * d)
    add_control_vector(ours, vector(ours.architecture.gguf), 0.5, layers)
    assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=0)
    remove_control_vectors(ours)
    assert torch.equal(ours(IDS).logits, plain)


@torch.no_grad()
@pytest.mark.parametrize("layers", [(1, 2), (2, 2)])
def test_logits_of_llama_cpp(tmp_path, layers):
    """Its cache is in half precision."""
    model = counterpart(reference(CASES["llama"]))
    model.save_gguf(tmp_path / "model.gguf")
    plain = model(IDS).logits[0, -1]
    add_control_vector(model, vector(), layers=layers)
    ours = model(IDS).logits[0, -1]
    directions = torch.stack([*vector().directions.values()])
    theirs = steered_logits(tmp_path / "model.gguf", IDS[0].tolist(), directions, layers, len(ours))
    assert_close(ours, theirs, atol=1e-2, rtol=0)
    assert (ours - plain).abs().max() > 1


def test_files_as_llama_cpp_writes_them(tmp_path):
    """The generator's keys, types and names: tools/cvector-generator of llama.cpp."""
    write_control_vector(tmp_path / "ours.gguf", vector())
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_int32("controlvector.layer_count", 2)
    for layer, direction in vector().directions.items():
        writer.add_tensor(f"direction.{layer}", direction.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, theirs = (read_control_vector(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    assert ours.model_hint == theirs.model_hint == "llama"
    for layer, direction in vector().directions.items():
        assert torch.equal(ours.directions[layer], direction)
        assert torch.equal(theirs.directions[layer], direction)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize(
    ("directions", "layers", "message"),
    [
        ({1: torch.ones(32)}, None, "directions of size 32, but the stream of LlamaForCausalLM has 64"),
        ({3: torch.ones(64)}, None, "a direction for layer 3, but LlamaForCausalLM has 3 layers"),
        ({1: torch.ones(64)}, (2, 2), "no direction for layers 2 to 2"),
    ],
    ids=["size", "layer", "range"],
)
def test_other_models_are_refused(directions, layers, message):
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(ValueError, match=message):
        add_control_vector(model, ControlVector(directions), layers=layers)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_other_files_are_refused(tmp_path):
    counterpart(reference(CASES["llama"])).save_gguf(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match=r"model\.gguf is not a control vector"):
        read_control_vector(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="layers from 1 on"):
        write_control_vector(tmp_path / "zero.gguf", ControlVector({0: torch.ones(64)}))
    assert not (tmp_path / "zero.gguf").exists()
