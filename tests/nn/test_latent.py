"""The projection between heads and latent vectors: plain, packed, and as in files."""

import gguf
import pytest
import torch
from torch.testing import assert_close

from torchgguf.nn import LatentProjection, QuantizedLatentProjection
from torchgguf.quants import quant_type

HEADS, LATENT, KEY, VALUE = SIZES = 3, 64, 32, 96


@pytest.fixture(scope="module")
def plain() -> LatentProjection:
    torch.manual_seed(0)
    layer = LatentProjection(*SIZES)
    torch.nn.init.normal_(layer.weight, std=0.3)
    return layer


def pack(layer, kinds):
    """The layer with its matrices as gguf-py packs them."""
    matrices = {slot.name.removesuffix(".weight"): slot.read() for slot in layer.slots()}
    for name, kind in kinds.items():
        matrix = matrices[name]
        blocks = torch.from_numpy(gguf.quants.quantize(matrix.numpy(), gguf.GGMLQuantizationType[kind]))
        layer = layer.pack(f"{name}.weight", blocks, quant_type(kind), torch.float32)
    return layer


@torch.no_grad()
def test_it_is_the_expansion_the_other_way_round(plain):
    """Scores with expanded keys, and means of expanded values, as the paper defines them."""
    query, latent = torch.randn(2, HEADS, 5, KEY), torch.randn(2, 7, LATENT)
    expanded = (latent @ plain.weight.T).view(2, 7, HEADS, KEY + VALUE).transpose(1, 2)
    keys, values = expanded.split([KEY, VALUE], dim=-1)
    scores = plain(query, True) @ latent[:, None].transpose(2, 3)
    assert_close(scores, query @ keys.transpose(2, 3), atol=1e-4, rtol=1e-4)
    probabilities = scores.softmax(-1)
    means = plain(probabilities @ latent[:, None], False)
    assert_close(means, probabilities @ values, atol=1e-5, rtol=1e-4)


def test_files_have_matrices_as_the_converter_makes_them(plain):
    """`k_b` transposed, both by heads."""
    rows = plain.weight.detach().view(HEADS, KEY + VALUE, LATENT)
    keys, values = plain.slots()
    assert torch.equal(keys.read(), rows[:, :KEY].transpose(1, 2))
    assert torch.equal(values.read(), rows[:, KEY:])
    with torch.device("meta"):
        again = LatentProjection(*SIZES)
    for slot in (values, keys):
        again.fill(slot.name, slot.read())
    assert torch.equal(again.weight, plain.weight)


@pytest.mark.parametrize("kinds", [{"k": "Q8_0", "v": "Q4_0"}, {"v": "Q5_1", "k": "Q8_0"}, {"v": "Q8_0"}])
def test_packed(plain, kinds, exact_products):
    packed = pack(plain, kinds)
    assert isinstance(packed, QuantizedLatentProjection)
    unpacked = packed.dequantize()
    query, means = torch.randn(2, HEADS, 40, KEY, requires_grad=True), torch.randn(2, HEADS, 40, LATENT)
    for input, to_latent in ((query, True), (means, False)):
        assert_close(packed(input, to_latent), unpacked(input, to_latent), atol=1e-4, rtol=1e-4)
    latent = torch.randn(2, 40, LATENT)
    assert_close(packed(latent), unpacked(latent), atol=1e-4, rtol=1e-4)
    assert_close(unpacked(latent), latent @ unpacked.weight.T)
    packed(query, True).sum().backward()
    gradient, query.grad = query.grad, None
    unpacked(query, True).sum().backward()
    assert_close(gradient, query.grad, atol=1e-4, rtol=1e-4)
    shapes = {slot.name: slot.shape for slot in plain.slots()}
    assert {slot.name: slot.shape for slot in packed.slots()} == shapes
