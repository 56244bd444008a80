"""`device_map`: the same logits wherever the weights are, plain ones and packed ones."""

import gc
import sys

import pytest
import torch
import transformers

from tests.models.files import edited, packed
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.container import open_gguf
from torchgguf.models import AutoModelForCausalLM
from torchgguf.models.io.devices import spread

IDS = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["llama", "llama-tied", "gpt2", "packed", "packed-tied"])
def place(request, tmp_path_factory):
    """A checkpoint, or a GGUF file with packed weights."""
    folder = tmp_path_factory.mktemp("places")
    if not request.param.startswith("packed"):
        reference(CASES[request.param]).save_pretrained(folder)
        return folder
    model = counterpart(reference(CASES[request.param.replace("packed", "qwen2")]))
    model.save_gguf(folder / "plain.gguf")
    with open_gguf(folder / "plain.gguf") as file:
        tensors = {
            name: packed(file[name], "Q8_0") for name, info in file.tensors.items() if len(info.shape) == 2
        }
        return edited(folder / "plain.gguf", folder / "packed.gguf", tensors=tensors)


def parts(model):
    """Names of the embedding, of a layer in the middle and of the head."""
    names = {module: name for name, module in model.named_modules()}
    layers = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    return names[model.get_input_embeddings()], names[layers[1]], names[model.get_output_embeddings()]


MAPS = {
    "all on the disk": lambda embedding, layer, head: {"": "disk"},
    "a layer": lambda embedding, layer, head: {"": "cpu", layer: "disk"},
    "all but a layer": lambda embedding, layer, head: {"": "disk", layer: "cpu"},
    "ends": lambda embedding, layer, head: {"": "cpu", embedding: "disk", head: "disk"},
}


@pytest.mark.parametrize("make_map", MAPS.values(), ids=MAPS.keys())
@torch.no_grad()
def test_offloaded(place, tmp_path, make_map):
    plain = AutoModelForCausalLM.from_pretrained(place)
    device_map = make_map(*parts(plain))
    model = AutoModelForCausalLM.from_pretrained(
        place, device_map=device_map, offload_folder=tmp_path / "offloaded"
    )
    assert model.hf_device_map == device_map
    assert any(parameter.is_meta for parameter in model.parameters())
    assert model.device == torch.device("cpu")
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(IDS[:, :5], **options), plain.generate(IDS[:, :5], **options))

    model.save_pretrained(tmp_path / "saved")
    plain.dequantize()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(theirs[name], value), name
    with pytest.raises(ValueError, match=r"save_gguf\(\) needs all weights"):
        model.save_gguf(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match=r"dequantize\(\) needs all weights"):
        model.dequantize()

    assert len(list((tmp_path / "offloaded").iterdir())) == 1
    del model
    gc.collect()
    assert not list((tmp_path / "offloaded").iterdir())


@pytest.mark.parametrize("strategy", ["auto", "balanced", "balanced_low_0", "sequential"])
@torch.no_grad()
def test_strategies(place, tmp_path, strategy):
    """As much as allowed is on the CPU, the rest on the disk."""
    plain = AutoModelForCausalLM.from_pretrained(place)
    size = sum(parameter.nbytes for parameter in plain.parameters())
    model = AutoModelForCausalLM.from_pretrained(
        place, device_map=strategy, max_memory={"cpu": int(0.8 * size)}, offload_folder=tmp_path
    )
    assert {*model.hf_device_map.values()} == {"cpu", "disk"}
    here = sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)
    assert 0 < here <= 0.8 * size
    assert torch.equal(model(IDS).logits, plain(IDS).logits)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is another device")
@pytest.mark.parametrize(
    "device_map", ["auto", "cpu", torch.device("cpu"), {"": "cpu"}, {"": "cpu", "lm_head": "cpu"}]
)
def test_one_device_needs_no_library(place, monkeypatch, device_map):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    model = AutoModelForCausalLM.from_pretrained(place, device_map=device_map)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert set(model.hf_device_map.values()) <= {"cpu", torch.device("cpu")}
    assert model(IDS).logits.isfinite().all()


def test_accelerate_is_asked_for(place, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match="pip install accelerate"):
        AutoModelForCausalLM.from_pretrained(place, device_map={"": "disk"}, offload_folder=tmp_path)


REFUSED = {
    "no such device": ({"device_map": "gpu"}, "device_map='gpu'.*auto.*sequential"),
    "not here": ({"device_map": "cuda:99"}, "device_map='cuda:99' is not available"),
    "nowhere": ({"device_map": "meta"}, "device_map='meta'"),
    "nowhere, in part": ({"device_map": {"": "cpu", "lm_head": "meta"}}, "device_map='meta'"),
    "no such module": ({"device_map": {"": "cpu", "model.nose": "disk"}}, "no module 'model.nose'"),
    "not all": ({"device_map": {"lm_head": "disk"}, "offload_folder": "x"}, "any device for .*: model"),
    "no folder": (
        {"device_map": {"": "disk"}},
        "device_map stores the model on the disk: set offload_folder=",
    ),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        spread(counterpart(reference(CASES["llama"])), **options)


@torch.no_grad()
def test_moving_and_changing_dtype(place):
    """`to`, `half` and the like leave packed weights as they are, and tied ones tied."""
    model = AutoModelForCausalLM.from_pretrained(place)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is embedding.weight
    whole = embedding.weight.dtype is torch.uint8
    for dtype, change in (
        (torch.bfloat16, model.bfloat16),
        (torch.float16, model.half),
        (torch.float32, model.float),
    ):
        assert change() is model
        assert model.dtype is model(IDS).logits.dtype is dtype
        assert (head.weight is embedding.weight) == tied
        assert (embedding.weight.dtype is torch.uint8) == whole
    assert model.to("cpu").device == torch.device("cpu")
