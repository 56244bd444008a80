"""Packed layers against plain ones with the weights that gguf-py unpacks."""

import copy

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.testing import assert_close

from torchgguf.nn import Conv1D, QuantizedEmbedding, QuantizedLinear, RMSNorm
from torchgguf.quants import quant_type

TYPES = ["Q4_0", "Q8_0", "Q5_1", "F16", "BF16"]


def packed(name: str, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random weights as gguf-py packs them, and as it unpacks them."""
    kind = gguf.GGMLQuantizationType[name]
    weights = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    blocks = gguf.quants.quantize(weights, kind)
    return torch.from_numpy(blocks.view(np.uint8)), torch.from_numpy(gguf.quants.dequantize(blocks, kind))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("bias", [False, True])
def test_linear(name, bias):
    blocks, weights = packed(name, 48, 64)
    offset = torch.nn.Parameter(torch.randn(48)) if bias else None
    layer = QuantizedLinear.from_packed(blocks, name, offset)
    x = torch.randn(2, 3, 64, requires_grad=True)
    expected = F.linear(x, weights, offset)
    assert_close(layer(x), expected, atol=0.05, rtol=0.01)  # how exact kernels are, their own tests say
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    layer(x).sum().backward()
    assert_close(x.grad, expected_grad, atol=0.05, rtol=0.01)
    assert not layer.weight.requires_grad
    if bias:
        assert_close(offset.grad, torch.full((48,), 6.0))
    plain = layer.dequantize()
    assert isinstance(plain, torch.nn.Linear) and plain.weight.requires_grad
    assert torch.equal(plain.weight, weights)
    assert bias == (plain.bias is not None) and (not bias or torch.equal(plain.bias, offset))
    assert layer.dequantize(torch.bfloat16).weight.dtype is torch.bfloat16


@pytest.mark.parametrize("name", TYPES)
def test_embedding(name):
    blocks, weights = packed(name, 48, 64)
    layer = QuantizedEmbedding.from_packed(blocks, name)
    ids = torch.tensor([[3, 0, 47], [3, 3, 12]])
    assert torch.equal(layer(ids), weights[ids])
    assert torch.equal(layer.dequantize().weight, weights)


def test_conv1d_is_a_linear_layer_transposed():
    """As in transformers; packed blocks run along the input dimension, as in a linear layer."""
    theirs = transformers.pytorch_utils.Conv1D(48, 64)
    torch.nn.init.normal_(theirs.bias)
    layer = Conv1D(48, 64)
    layer.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64)
    assert_close(layer(x), theirs(x))
    rows = {slot.name: slot for slot in layer.slots()}
    assert rows["weight"].shape == (48, 64) and torch.equal(rows["weight"].read(), theirs.weight.t())
    blocks, weights = packed("Q8_0", 48, 64)
    from_file = layer.pack("weight", blocks, quant_type("Q8_0"), torch.float32)
    assert_close(from_file(x), F.linear(x, weights, theirs.bias), atol=0.05, rtol=0.01)
    plain = from_file.dequantize()
    assert torch.equal(plain.weight, weights.t()) and torch.equal(plain.bias, theirs.bias)
    assert [slot.shape for slot in from_file.slots()] == [slot.shape for slot in layer.slots()]


def test_dtype_of_an_embedding_follows_the_module():
    layer = QuantizedEmbedding(8, 32, "Q8_0")
    assert layer.dtype is torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        assert layer.to(dtype)(torch.tensor([1])).dtype is layer.dtype is dtype
    assert layer.weight.dtype is torch.uint8


def test_sizes_and_types_are_shown():
    linear = QuantizedLinear(64, 48, "Q4_0", bias=True)
    assert repr(linear) == "QuantizedLinear(in_features=64, out_features=48, Q4_0, bias=True)"
    assert repr(QuantizedEmbedding(10, 64, 8)) == "QuantizedEmbedding(10, 64, Q8_0)"
    assert linear.weight.shape == (48, 2 * 18)


def test_rows_must_be_whole_blocks():
    with pytest.raises(ValueError, match="Q4_K"):
        QuantizedLinear(64, 48, "Q4_K")


def test_state_dict_and_copies():
    blocks, _ = packed("Q4_0", 48, 64)
    layer, other = QuantizedLinear.from_packed(blocks, "Q4_0"), QuantizedLinear(64, 48, "Q4_0")
    other.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == ["weight"]
    assert torch.equal(other.weight, blocks)
    twin = copy.deepcopy(layer)
    assert twin.quant_type is layer.quant_type and torch.equal(twin.weight, blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rms_norm(dtype):
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm, expected = RMSNorm(64, eps=1e-5), LlamaRMSNorm(64, eps=1e-5)
    weight = torch.rand(64) + 0.5
    norm.weight.data, expected.weight.data = weight.to(dtype), weight.to(dtype)
    x = torch.randn(3, 5, 64, dtype=dtype) * 3
    assert_close(norm(x), expected(x), atol=1e-6, rtol=1e-6)
    # An FP32 weight, as packed models have, does not widen the activations.
    norm.weight.data = weight
    assert norm(x).dtype is dtype
