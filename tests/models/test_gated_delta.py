"""Models with layers of the gated delta rule: packed matrices, importances, odd files."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited, packed
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.container import GGUFError, open_gguf
from torchgguf.conversion.importance import collect_importance
from torchgguf.models import AutoModelForCausalLM
from torchgguf.nn.grouped_rows import QuantizedGroupedRowsLinear
from torchgguf.nn.tiled import QuantizedTiledLinear

NAMES = ("qwen35", "qwen35moe", "qwen3next")
each_name = pytest.mark.parametrize("name", NAMES)
LENGTH = 300


@pytest.fixture(scope="module")
def originals():
    return {name: reference(CASES[name]) for name in NAMES}


@pytest.fixture(scope="module")
def packed_files(originals, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packed")
    for name, model in originals.items():
        counterpart(model).save_gguf(folder / f"{name}.gguf", quantization="Q8_0")
    return {name: folder / f"{name}.gguf" for name in originals}


def text(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 400, (1, length), generator=torch.Generator().manual_seed(seed))


@each_name
@torch.no_grad()
def test_packed_it_calculates_as_unpacked(originals, packed_files, name, tmp_path, exact_products):
    model = AutoModelForCausalLM.from_pretrained(packed_files[name])
    kinds = {type(layer) for layer in model.modules()}
    assert (QuantizedGroupedRowsLinear if name == "qwen3next" else QuantizedTiledLinear) in kinds
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == packed_files[name].read_bytes()
    # So long that no expert has few rows, whose activations would be rounded.
    peer, ids = originals[name].__class__(originals[name].config).eval(), text(LENGTH)
    plain = AutoModelForCausalLM.from_pretrained(packed_files[name], dequantize=True)
    peer.load_state_dict(plain.state_dict())
    expected = peer(ids).logits
    assert_close(model(ids).logits, expected, atol=1e-4, rtol=0)
    assert_close(model.dequantize()(ids).logits, expected, atol=1e-4, rtol=0)
    assert (originals[name](ids).logits - expected).abs().max() > 1e-3


@each_name
def test_importances_are_of_the_columns_of_files(packed_files, name, exact_products):
    """Packed and plain layers multiply the same numbers."""
    plain = AutoModelForCausalLM.from_pretrained(packed_files[name], dequantize=True)
    packed = AutoModelForCausalLM.from_pretrained(packed_files[name])
    ours, expected = (
        collect_importance(model, text(LENGTH)[0].tolist(), chunk_size=150).activations
        for model in (packed, plain)
    )
    assert ours.keys() == expected.keys()
    names = {f"blk.0.{tensor}.weight" for tensor in ("attn_qkv", "attn_gate", "ssm_out")}
    assert names <= ours.keys()
    for tensor, activations in expected.items():
        assert_close(ours[tensor].sums, activations.sums, rtol=1e-3, atol=1e-3)
    with open_gguf(packed_files[name]) as file:
        blocks = file.tensors["blk.0.ssm_out.weight"]
    assert ours["blk.0.ssm_out.weight"].sums.shape[-1] == blocks.shape[-1]


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
@torch.no_grad()
def test_files_with_one_matrix_of_groups(originals, kind, tmp_path):
    """As the first files of Qwen3-Next have them; written again, there are two."""
    usual, fused = tmp_path / "usual.gguf", tmp_path / "fused.gguf"
    model = counterpart(originals["qwen3next"])
    model.save_gguf(usual, quantization=kind)
    layers = [i for i, kind in enumerate(model.config.layer_types) if kind == "linear_attention"]
    weights = {i: model.model.layers[i].linear_attn.in_proj_qkvz.weight for i in layers}
    parts = {f"blk.{i}.{part}.weight": None for i in layers for part in ("attn_qkv", "attn_gate")}
    groups = {f"blk.{i}.ssm_in.weight": packed(weight, kind) for i, weight in weights.items()}
    ours = AutoModelForCausalLM.from_pretrained(edited(usual, fused, tensors=parts | groups))
    expected, ids = AutoModelForCausalLM.from_pretrained(usual), text(24)
    assert_close(ours(ids).logits, expected(ids).logits, atol=1e-5, rtol=0)
    ours.save_gguf(tmp_path / "again.gguf")
    with open_gguf(usual) as one, open_gguf(tmp_path / "again.gguf") as other:
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one[name], other[name]) for name in one.tensors)


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("odd") / "odd.gguf"
    counterpart(reference(CASES["qwen35-tied-odd-heads"])).save_gguf(path)
    return path


def test_kinds_of_layers_follow_from_an_interval(odd, tmp_path):
    """Files need not state them one by one, nor the interval."""
    keys = dict.fromkeys(("qwen35.attention.recurrent_layers", "qwen35.full_attention_interval"))
    expected, ours = (
        AutoModelForCausalLM.from_pretrained(path) for path in (odd, edited(odd, tmp_path / "a.gguf", keys))
    )
    assert ours.config.layer_types == expected.config.layer_types
    assert ours.config.layer_types == ["linear_attention"] * 3 + ["full_attention"]


WRONG = {
    "attention.recurrent_layers": ([True, False], "must be 4 booleans, one a layer"),
    "ssm.inner_size": (95, "ssm.inner_size = 95 is invalid: there are 3 heads of values"),
    "ssm.time_step_rank": (4, "must be a positive multiple of linear_num_key_heads, got 4 and 3"),
    "rope.dimension_sections": ([1, 2], "must be three or four integers"),
    "full_attention_interval": (0, "full_attention_interval must be above 0"),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_does_not_match_is_refused(odd, key, tmp_path):
    value, message = WRONG[key]
    path = edited(odd, tmp_path / "wrong.gguf", {f"qwen35.{key}": value})
    with pytest.raises(GGUFError, match=message):
        AutoModelForCausalLM.from_pretrained(path)
