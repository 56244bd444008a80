"""Factors on products, which files made from NVFP4 checkpoints have beside their matrices."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import convert, greedy_text
from tests.support import LLAMA_CPP
from torchgguf import AutoModelForCausalLM, GGUFError, open_gguf
from torchgguf.container import TensorSource, TensorType
from torchgguf.container.tensor_types import storage_dtype
from torchgguf.conversion import convert_to_checkpoint
from torchgguf.nn import PackedLayer
from torchgguf.quants import dequantize, quantize

IDS = torch.arange(24)[None] * 7 % 400
# Of each kind: matrices with a factor, by the number of factors, and the type of all matrices of the file.
KINDS = {
    "llama-biases": (
        {"blk.0.attn_q": 1, "blk.1.attn_k": 1, "blk.1.ffn_up": 1, "blk.2.ffn_down": 1, "output": 1},
        "NVFP4",
    ),
    "llama": ({"blk.0.attn_q": 1, "blk.1.attn_output": 1, "blk.2.ffn_up": 1, "blk.0.ffn_gate": 1}, "F32"),
    "qwen3moe": ({"blk.0.ffn_gate_exps": 7, "blk.1.ffn_up_exps": 7, "blk.2.ffn_down_exps": 7}, "Q8_0"),
    "gpt-oss": ({"blk.0.ffn_gate_exps": 5, "blk.1.ffn_up_exps": 5, "blk.2.ffn_down_exps": 5}, "Q8_0"),
    "granitemoe-shared": ({"blk.0.ffn_up_shexp": 1, "blk.1.ffn_gate_shexp": 1}, "F16"),
    "gpt2": ({"blk.0.attn_qkv": 1, "blk.2.attn_output": 1}, "F16"),
}


def factors(matrices: dict[str, int]) -> dict[str, torch.Tensor]:
    """Numbers between 0.5 and 1.5."""
    generator = torch.Generator().manual_seed(0)
    return {name: 0.5 + torch.rand(count, generator=generator) for name, count in matrices.items()}


def with_factors(original: Path, path: Path, added: dict[str, int], type_name: str) -> tuple[Path, Path]:
    """Return two files of the same model: with factors beside matrices, and with the products of both."""
    scales = factors(added)
    beside: dict[str, torch.Tensor | TensorSource | None] = {}
    multiplied: dict[str, torch.Tensor | TensorSource | None] = {}
    with open_gguf(original) as file:
        for name, scale in scales.items():
            weights = file[f"{name}.weight"].float()
            if weights.shape[-1] % 64 == 0 and type_name != "F32":
                blocks = quantize(weights, type_name).view(storage_dtype(TensorType[type_name]))
                source = TensorSource(
                    tuple(weights.shape), TensorType[type_name], lambda blocks=blocks: blocks
                )
                values = dequantize(blocks.view(torch.uint8), type_name)
            else:
                source, values = TensorSource.of(weights.clone()), weights.clone()
            beside[f"{name}.weight"] = source
            beside[f"{name}.scale"] = scale
            beside[f"{name}.input_scale"] = scale + 1
            multiplied[f"{name}.weight"] = values * scale.view(-1, *[1] * (values.dim() - 1))
            # In MLPs the factor applies to the bias, too, unless it is that of NVFP4.
            is_single = scale.numel() == 1 and source.type is not TensorType.NVFP4
            if "ffn" in name and f"{name}.bias" in file and is_single:
                multiplied[f"{name}.bias"] = file[f"{name}.bias"] * scale
    return (
        edited(original, path / "beside.gguf", tensors=beside),
        edited(original, path / "multiplied.gguf", tensors=multiplied),
    )


@pytest.fixture(scope="module", params=KINDS)
def files(request, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("factors")
    counterpart(reference(CASES[request.param])).save_gguf(folder / "original.gguf")
    return with_factors(folder / "original.gguf", folder, *KINDS[request.param])


@torch.no_grad()
def test_factors_multiply_products(files, tmp_path, exact_products):
    """Packed, plain, unpacked later and in a checkpoint; the file written back is the same."""
    beside, multiplied = files
    expected = AutoModelForCausalLM.from_pretrained(multiplied, dequantize=True)(IDS).logits
    model = AutoModelForCausalLM.from_pretrained(beside)
    assert_close(model(IDS).logits, expected, atol=1e-4, rtol=0)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == beside.read_bytes()
    model.save_pretrained(tmp_path / "folder")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert_close(plain(IDS).logits, expected, atol=1e-4, rtol=0)
    assert_close(model.dequantize()(IDS).logits, expected, atol=1e-4, rtol=0)
    assert not any(isinstance(layer, PackedLayer) for layer in model.modules())
    convert_to_checkpoint(beside, tmp_path / "converted")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "converted")
    assert_close(plain(IDS).logits, expected, atol=1e-4, rtol=0)
    plain = AutoModelForCausalLM.from_pretrained(beside, dequantize=True)
    assert_close(plain(IDS).logits, expected, atol=1e-4, rtol=0)
    plain.save_gguf(tmp_path / "plain.gguf")
    with open_gguf(tmp_path / "plain.gguf") as file:
        assert not any(name.endswith("scale") for name in file.tensors)


@torch.no_grad()
def test_the_range_of_halves_is_that_of_the_results(tmp_path):
    """Blocks that contain large numbers, whose factor makes them small again."""
    model = counterpart(reference(CASES["llama"]))
    model.save_gguf(tmp_path / "original.gguf")
    weights = model.model.layers[0].mlp.up_proj.weight.detach()
    changes = {"blk.0.ffn_up.weight": weights * 2.0**17, "blk.0.ffn_up.scale": torch.tensor([2.0**-17])}
    edited(tmp_path / "original.gguf", tmp_path / "beside.gguf", tensors=changes)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "beside.gguf", dtype="float16")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "original.gguf", dtype="float16")
    assert_close(ours(IDS).logits, expected(IDS).logits, atol=0.05, rtol=0.01)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "beside.gguf", dtype="float16", dequantize=True)
    assert torch.equal(plain.model.layers[0].mlp.up_proj.weight, weights.half())


@pytest.mark.parametrize(
    ("name", "factor", "reason"),
    [
        ("blk.0.ffn_up.scale", torch.ones(2), r"blk\.0\.ffn_up\.scale has shape \(2,\), expected \(1,\)"),
        ("blk.0.ffn_up.scale", torch.ones(1, dtype=torch.int32), "unsupported dtype torch.int32"),
        ("blk.0.attn_norm.scale", torch.ones(1), r"unused tensors: blk\.0\.attn_norm\.scale"),
        ("token_embd.scale", torch.ones(1), r"unused tensors: token_embd\.scale"),
    ],
)
def test_what_is_no_factor_is_refused(tmp_path, name, factor, reason):
    counterpart(reference(CASES["llama"])).save_gguf(tmp_path / "original.gguf")
    file = edited(tmp_path / "original.gguf", tmp_path / "changed.gguf", tensors={name: factor})
    with pytest.raises(GGUFError, match=reason):
        AutoModelForCausalLM.from_pretrained(file)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is missing")
def test_llama_cpp_multiplies_alike(tmp_path):
    """The same greedy text; without the factors it is another one."""
    names = ("llama-biases", "qwen3moe")
    files = convert({name: reference(CASES[name]) for name in names}, tmp_path, {})
    prompt = "The licenses for most software"
    for name in names:  # in FP32: llama.cpp rounds what it multiplies packed rows by
        added = {matrix: count for matrix, count in KINDS[name][0].items() if matrix != "output"}
        folder = tmp_path / f"{name}-factors"
        folder.mkdir()
        beside, multiplied = with_factors(files[name], folder, added, "F32")
        text = greedy_text(beside, prompt)
        assert text == greedy_text(multiplied, prompt)
        assert text != greedy_text(files[name], prompt)
