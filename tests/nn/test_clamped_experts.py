"""Experts of gpt-oss: plain ones as in transformers, packed ones as plain ones of the same weights."""

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

from torchgguf.nn.clamped_experts import ClampedExperts, ClampedSwiGLU, QuantizedClampedExperts
from torchgguf.quants import quant_type

SIZES = EXPERTS, HIDDEN, INTERMEDIATE = 5, 64, 96
TYPES = {"gate_proj": "MXFP4", "up_proj": "Q8_0", "down_proj": "MXFP4"}


@pytest.fixture(scope="module")
def reference():
    """The experts of transformers, with numbers that reach the bounds."""
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        num_local_experts=EXPERTS, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, swiglu_limit=1.5
    )
    config._experts_implementation = "eager"
    experts = GptOssExperts(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return experts


@pytest.fixture(scope="module")
def experts(reference) -> ClampedExperts:
    layer = ClampedExperts(*SIZES, ClampedSwiGLU(limit=1.5))
    layer.load_state_dict(reference.state_dict())
    return layer


@pytest.fixture(scope="module")
def packed(experts) -> QuantizedClampedExperts:
    """The same, its matrices as gguf-py packs them."""
    layer = experts
    for name, kind in TYPES.items():
        slot = next(slot for slot in experts.slots() if slot.name == f"{name}.weight")
        matrix = slot.read().contiguous().numpy()
        blocks = torch.from_numpy(gguf.quants.quantize(matrix, gguf.GGMLQuantizationType[kind]))
        layer = layer.pack(slot.name, blocks, quant_type(kind), torch.float32)
    return layer


def routed(tokens: int):
    generator = torch.Generator().manual_seed(tokens)
    weights, chosen = torch.rand(tokens, EXPERTS, generator=generator).softmax(dim=-1).topk(3)
    return torch.randn(tokens, HIDDEN, generator=generator), chosen, weights


@pytest.mark.parametrize("tokens", [1, 40])
def test_plain_experts_are_those_of_transformers(reference, experts, tokens):
    x, chosen, weights = routed(tokens)
    outputs = []
    for layer in (experts, reference):
        layer.zero_grad()
        output = layer(x, chosen, weights)
        output.square().sum().backward()
        outputs.append(output)
    assert_close(*outputs, atol=1e-4, rtol=1e-4)
    for actual, expected in zip(experts.parameters(), reference.parameters(), strict=True):
        assert_close(actual.grad, expected.grad, atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 40])
def test_packed_experts_are_those_of_the_weights_they_hold(packed, tokens, exact_products):
    inputs = routed(tokens)
    assert_close(packed(*inputs), packed.dequantize()(*inputs), atol=1e-4, rtol=1e-4)
    assert packed(*(each.bfloat16() if each.is_floating_point() else each for each in inputs)).dtype == (
        torch.bfloat16
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_a_compiled_graph_is_whole(experts, packed, kind, exact_products):
    layer, inputs = (packed if kind == "packed" else experts), routed(2)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*inputs), layer(*inputs), atol=1e-4, rtol=1e-4)


def test_slots_hold_what_fills_them(experts, packed):
    """Gates and ups separate, not transposed, in any order; a packed layer lists the same tensors."""
    tensors = {slot.name: slot.read().clone() for slot in experts.slots()}
    assert tensors["gate_proj.weight"].shape == tensors["up_proj.weight"].shape == (5, 96, 64)
    assert tensors["down_proj.weight"].shape == (5, 64, 96)
    with torch.device("meta"):
        empty = ClampedExperts(*SIZES, ClampedSwiGLU())
    for name in sorted(tensors):
        empty.fill(name, tensors[name])
    for name, value in experts.state_dict().items():
        assert torch.equal(empty.state_dict()[name], value), name
    assert {slot.name: slot.shape for slot in packed.slots()} == {
        slot.name: slot.shape for slot in experts.slots()
    }
    for name in ("gate_proj.bias", "up_proj.bias", "down_proj.bias"):
        kept = next(slot for slot in packed.slots() if slot.name == name).read()
        assert torch.equal(kept, tensors[name])
