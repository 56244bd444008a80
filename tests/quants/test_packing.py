"""Packing against ggml, byte for byte."""

import gguf
import numpy as np
import pytest
import torch

from tests.quants.evidence import golden_of, goldens, hard_weights
from torchgguf.quants import dequantize, quant_types, quantize

EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16")
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
NEEDS_IMPORTANCE = ("IQ2_XXS", "IQ2_XS", "IQ1_S")
PACKED = [kind.name for kind in quant_types() if kind.dtype is None]


@pytest.mark.parametrize("name", EXACT)
def test_packs_as_ggml_does(name):
    golden = golden_of(name)
    assert torch.equal(quantize(golden.weights, name), golden.packed)


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.file)
def test_loses_no_more_than_ggml(golden):
    """The error that each of them makes small: with importances the weighted one, else the plain one."""
    weight = torch.ones(512) if golden.imatrix is None else golden.imatrix
    packed = quantize(golden.weights, golden.ggml_type, golden.imatrix)

    def error(unpacked):
        return ((unpacked.double() - golden.weights) ** 2 * weight).mean()

    assert error(dequantize(packed, golden.ggml_type)) <= error(golden.unpacked)


@pytest.mark.parametrize("name", [name for name in EXACT if name[0] == "Q"])
def test_packs_any_weights_as_the_gguf_package_does(name):
    """Zeros, subnormal and large numbers, and many that are equally far from zero."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 256), np.float32) * 10.0 ** rng.integers(-36, 4, (64, 1))
    weights[0] = 0
    weights[1] = rng.integers(-3, 4, 256)
    weights[2, ::2] = -1.5
    weights = weights.astype(np.float32)
    expected = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[name])
    actual = quantize(torch.from_numpy(weights), name)
    assert torch.equal(actual, torch.from_numpy(expected))


def test_a_tensor_of_several_parts_and_dimensions_is_whole(monkeypatch):
    golden = golden_of("Q5_1")
    monkeypatch.setattr("torchgguf.quants.reference._WEIGHTS_AT_ONCE", 96)
    packed = quantize(golden.weights.view(2, 4, 512), "Q5_1")
    assert torch.equal(packed, golden.packed.view(2, 4, -1))


@pytest.mark.parametrize(("name", "size"), [("Q4_K", 144), ("F16", 512)])
def test_no_rows_are_no_rows(name, size):
    assert quantize(torch.empty(0, 256), name).shape == (0, size)
    assert quantize(torch.empty(2, 0, 256), name, torch.ones(256)).shape == (2, 0, size)


def test_halves_are_packed_as_the_numbers_that_they_are():
    weights = torch.randn(4, 64).bfloat16()
    assert torch.equal(quantize(weights, "Q8_0"), quantize(weights.float(), "Q8_0"))


def test_what_is_packed_again_stays_as_it_is():
    golden = golden_of("Q8_0")
    again = quantize(dequantize(golden.packed, "Q8_0"), "Q8_0")
    assert torch.equal(dequantize(again, "Q8_0"), golden.unpacked)


@pytest.mark.parametrize("name", ["Q4_1", "Q5_1"])
def test_what_is_packed_again_by_importance_loses_nothing_where_little_counts(name):
    golden = golden_of(name)
    importance = torch.rand(512, generator=torch.Generator().manual_seed(0)) ** 6
    again = quantize(golden.unpacked, name, importance)
    assert torch.equal(dequantize(again, name), golden.unpacked)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(wrong):
    weights = torch.ones(2, 64)
    weights[1, 40] = wrong
    with pytest.raises(ValueError, match="infinite or not a number cannot be packed to Q4_0"):
        quantize(weights, "Q4_0")


@pytest.mark.parametrize("name", PACKED)
def test_no_weights_are_too_hard(name):
    """No infinite scales, no scales lost below FP16's least, zero stays zero."""
    weights, importance = hard_weights()
    for imatrix in (importance,) if name in NEEDS_IMPORTANCE else (None, importance):
        unpacked = dequantize(quantize(weights, name, imatrix), name)
        assert unpacked.isfinite().all()
        assert (unpacked[[0, 8, 11]].abs() < 1e-37).all()
        if name in K_QUANTS:
            assert ((unpacked[2] - weights[2]) ** 2).sum() < (weights[2] ** 2).sum()


@pytest.mark.parametrize("name", NEEDS_IMPORTANCE)
def test_types_of_so_few_bits_need_importances(name):
    """The types for which ggml asserts that it was given some."""
    with pytest.raises(ValueError, match=f"packing to {name} needs an importance matrix"):
        quantize(torch.ones(1, 256), name)


def test_importances_are_relative_and_only_what_can_be_one():
    weights, importance = hard_weights()
    packed = quantize(weights, "Q4_K", importance)
    assert torch.equal(quantize(weights, "Q4_K", importance * 2.0**100), packed)
    assert torch.equal(
        quantize(weights, "Q4_K", importance * 0), quantize(weights, "Q4_K", importance * 0 + 1)
    )
    with pytest.raises(ValueError, match=r"weights of 768 columns need that many importances, not \(767,\)"):
        quantize(weights, "Q4_K", importance[1:])
    for wrong in (-1.0, float("nan"), float("inf")):
        importance[5] = wrong
        with pytest.raises(ValueError, match="importances must be finite and not below zero"):
            quantize(weights, "Q4_K", importance)
