"""Checkpoints of gpt-oss as they are released: experts in MXFP4, blocks and scales apart."""

import json
import re

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests.models.tiny import CASES, reference
from tests.peers.llama_cpp import convert_folders
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import convert_to_gguf, open_gguf
from torchgguf.models import AutoModelForCausalLM, GGUFQuantizationConfig
from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.nn.clamped_experts import ClampedExperts, QuantizedClampedExperts
from torchgguf.packing import Quantization

EXPERTS = "model.layers.{}.mlp.experts"


def released(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `(E, rows, columns)` as blocks with pairs of neighbours in a byte, and scales."""
    packed = gguf.quants.quantize(matrix.contiguous().numpy(), gguf.GGMLQuantizationType.MXFP4)
    groups = torch.from_numpy(packed).unflatten(-1, (-1, 17))
    bytes_ = groups[..., 1:]
    weights = torch.cat((bytes_ & 0xF, bytes_ >> 4), dim=-1)
    return weights[..., ::2] | weights[..., 1::2] << 4, groups[..., 0].contiguous()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "gpt-oss"
    model = reference(CASES["gpt-oss"])
    model.bfloat16().save_pretrained(path)
    tensors = load_file(path / "model.safetensors")
    for layer in range(model.config.num_hidden_layers):
        for name in ("gate_up_proj", "down_proj"):
            whole = f"{EXPERTS.format(layer)}.{name}"
            blocks, scales = released(tensors.pop(whole).float().transpose(1, 2))
            tensors |= {f"{whole}_blocks": blocks, f"{whole}_scales": scales}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    method = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": method}))
    add_tokenizer(path, "gpt_oss")
    return path


def ids() -> torch.Tensor:
    return torch.randint(0, 400, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs(folder):
    """The model of transformers, its experts unpacked."""
    plain = transformers.Mxfp4Config(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=plain, dtype=torch.bfloat16
    )
    return model.float().eval()


@torch.no_grad()
def test_experts_stay_packed(folder, theirs, exact_products):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    experts = model.model.layers[0].mlp.experts
    assert type(experts) is QuantizedClampedExperts
    assert {kind.name for kind in experts.quant_types.values()} == {"MXFP4"}
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, dequantize=True)
    # Products of few rows round activations to 16 bits.
    assert_close(model(ids()).logits, plain(ids()).logits, atol=1e-3, rtol=0)
    assert_close(plain(ids()).logits, theirs(ids()).logits, atol=1e-5, rtol=0)


def test_unpacked_they_are_those_of_transformers(folder, theirs, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, dequantize=True)
    assert type(model.model.layers[0].mlp.experts) is ClampedExperts
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    state = model.state_dict()
    assert saved.keys() == state.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(state[name], value), name
        assert torch.equal(saved[name].float(), value), name
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter: python scripts/fetch_models.py")
def test_the_file_is_the_one_that_the_converter_makes(folder, tmp_path):
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    convert_to_gguf(folder, ours, pre="gpt-4o")
    convert_folders([(folder, theirs, "bf16", "gpt-4o")])
    with open_gguf(ours) as a, open_gguf(theirs) as b:
        assert a.tensors.keys() == b.tensors.keys()
        for name, info in b.tensors.items():
            assert (a.tensors[name].type, a.tensors[name].shape) == (info.type, info.shape), name
            assert torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)), name
    AutoModelForCausalLM.from_pretrained(folder).save_gguf(tmp_path / "saved.gguf")
    with open_gguf(ours) as a, open_gguf(tmp_path / "saved.gguf") as b:
        assert all(torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)) for name in a.tensors)


def test_packed_in_another_way(folder, tmp_path):
    """They are unpacked first."""
    config = GGUFQuantizationConfig("Q8_0")
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
    assert {kind.name for kind in model.model.layers[0].mlp.experts.quant_types.values()} == {"Q8_0"}
    quantization = Quantization("Q8_0", allow_requantize=True)
    convert_to_gguf(folder, tmp_path / "q8.gguf", quantization=quantization, tokenizer=False)
    with open_gguf(tmp_path / "q8.gguf") as file:
        assert file.tensors["blk.0.ffn_gate_exps.weight"].type.name == "Q8_0"


def test_blocks_without_scales(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"{EXPERTS.format(1)}.down_proj_scales"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    message = (
        r"layers\.1\.mlp\.experts\.down_proj_blocks has shape \(5, 64, 3, 16\), but .*_scales is missing"
    )
    with pytest.raises(CheckpointError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path)


WRONG = {
    "a bias of fewer columns": ("down_proj_bias", lambda t: t[:, :-1], "expected (5, 64)"),
    "a bias of fewer experts": ("down_proj_bias", lambda t: t[:-1], "expected (5, 64)"),
    "a bias of no dimensions": ("gate_up_proj_bias", lambda t: t[0, 0], "expected (5, 192)"),
    "rows that are no pairs": ("gate_up_proj_(blocks|scales)", lambda t: t[:, :-1], "are not 2 matrices"),
}


@pytest.mark.parametrize(("names", "change", "words"), WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit(folder, tmp_path, names, change, words):
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if re.fullmatch(f"{EXPERTS.format(0)}.{names}", name):
            tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=re.escape(words)):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=re.escape(words)):
        convert_to_gguf(tmp_path, tmp_path, tokenizer=False)
