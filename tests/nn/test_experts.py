"""Mixtures of experts: plain ones as in transformers, packed ones as plain ones of the same weights."""

import gguf
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.testing import assert_close
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeExperts, load_balancing_loss_func

from torchgguf.nn import Experts, Gate, QuantizedExperts, load_balancing_loss

EXPERTS, HIDDEN, INTERMEDIATE, CHOICES = 7, 64, 96, 3
TYPES = {"gate_proj": "Q4_0", "up_proj": "Q8_0", "down_proj": "BF16"}


@pytest.fixture(scope="module")
def reference():
    """The experts of transformers."""
    torch.manual_seed(0)
    config = transformers.Qwen2MoeConfig(
        num_experts=EXPERTS, hidden_size=HIDDEN, moe_intermediate_size=INTERMEDIATE
    )
    config._experts_implementation = "eager"
    experts = Qwen2MoeExperts(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return experts


def plain(state: dict[str, torch.Tensor]) -> Experts:
    experts = Experts(EXPERTS, HIDDEN, INTERMEDIATE, F.silu)
    experts.load_state_dict(state)
    return experts


def matrices(experts: torch.nn.Module) -> dict[str, torch.Tensor]:
    gate, up = experts.gate_up_proj.detach().chunk(2, dim=1)
    return {"gate_proj": gate, "up_proj": up, "down_proj": experts.down_proj.detach()}


@pytest.fixture(scope="module")
def blocks(reference):
    """The weights as gguf-py packs them, (experts, rows, bytes)."""
    packed = {}
    for name, matrix in matrices(reference).items():
        kind = gguf.GGMLQuantizationType[TYPES[name]]
        packed[name] = torch.from_numpy(gguf.quants.quantize(matrix.numpy(), kind)).view(torch.uint8)
    return packed


@pytest.fixture(scope="module")
def rounded(blocks):
    """The weights that the blocks hold, named as in transformers, as gguf-py unpacks them."""
    numbers = {
        name: torch.from_numpy(gguf.quants.dequantize(packed.numpy(), gguf.GGMLQuantizationType[TYPES[name]]))
        for name, packed in blocks.items()
    }
    gate_up = torch.cat([numbers["gate_proj"], numbers["up_proj"]], dim=1)
    return {"gate_up_proj": gate_up, "down_proj": numbers["down_proj"]}


def packed_experts(blocks) -> QuantizedExperts:
    given = {name: (packed, TYPES[name]) for name, packed in blocks.items()}
    return QuantizedExperts(F.silu, given)


def routed(tokens: int, experts: int = EXPERTS):
    """Tokens, the experts of each, and their weights."""
    generator = torch.Generator().manual_seed(tokens)
    scores = torch.rand(tokens, experts, generator=generator).softmax(dim=-1)
    weights, chosen = scores.topk(CHOICES)
    return torch.randn(tokens, HIDDEN, generator=generator), chosen, weights


def run(experts, x, chosen, weights):
    """The output, and the gradients of tokens and weights for a loss that is no mere sum."""
    x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
    output = experts(x, chosen, weights)
    output.square().sum().backward()
    return output.detach(), x.grad, weights.grad


@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_plain_experts_are_those_of_transformers(reference, tokens):
    experts, inputs = plain(reference.state_dict()), routed(tokens)
    reference.zero_grad()
    for actual, expected in zip(run(experts, *inputs), run(reference, *inputs), strict=True):
        assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    for actual, expected in zip(experts.parameters(), reference.parameters(), strict=True):
        assert_close(actual.grad, expected.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_packed_experts_are_those_of_the_weights_they_hold(blocks, rounded, tokens, exact_products):
    inputs = routed(tokens)
    expected = run(plain(rounded), *inputs)
    for actual, theirs in zip(run(packed_experts(blocks), *inputs), expected, strict=True):
        assert_close(actual, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, 40])
@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_a_compiled_graph_is_whole(reference, blocks, rounded, kind, tokens, exact_products):
    """Whichever experts the tokens of a step choose: one graph serves all."""
    experts = packed_experts(blocks) if kind == "packed" else plain(rounded)
    torch._dynamo.reset()
    compiled = torch.compile(experts, fullgraph=True, backend="aot_eager")
    for shift in (0, 2):
        x, chosen, weights = routed(tokens)
        inputs = x, (chosen + shift) % EXPERTS, weights
        for actual, expected in zip(run(compiled, *inputs), run(plain(rounded), *inputs), strict=True):
            assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_long_texts_go_through_their_own_experts_only_when_compiled_too(blocks):
    """The graph breaks there: all tokens through all experts would be most of the work, and in vain."""
    x, chosen, weights = routed(100, experts=3)
    spoilt = {name: packed.clone() for name, packed in blocks.items()}
    for packed in spoilt.values():
        packed[3:] = 0xFF
    compiled = torch.compile(packed_experts(spoilt), backend="eager")
    assert compiled(x, chosen, weights).isfinite().all()


def test_unpacking_gives_the_weights_that_the_blocks_hold(blocks, rounded):
    state = packed_experts(blocks).dequantize().state_dict()
    assert state.keys() == rounded.keys()
    for name, expected in rounded.items():
        assert torch.equal(state[name], expected)


def test_only_the_experts_chosen_are_read(blocks):
    """What the other experts' blocks hold, were it not even numbers, is nothing to the result."""
    x, chosen, weights = routed(2, experts=3)
    spoilt = {name: packed.clone() for name, packed in blocks.items()}
    for packed in spoilt.values():
        packed[chosen.max() + 1 :] = 0xFF  # scales and numbers that are NaN
    output = packed_experts(spoilt)(x, chosen, weights)
    assert torch.equal(output, packed_experts(blocks)(x, chosen, weights))
    assert not packed_experts(spoilt)(x, chosen + 4, weights).isfinite().all()


@pytest.mark.parametrize(
    "order", [["gate_proj", "up_proj", "down_proj"], ["down_proj", "up_proj", "gate_proj"]]
)
@pytest.mark.parametrize("unpacked", TYPES)
def test_some_matrices_packed_and_some_plain(reference, blocks, rounded, unpacked, order):
    """They come one by one, in any order, as files have them; each keeps its bytes."""
    numbers = matrices(reference)
    with torch.device("meta"):
        layer = Experts(EXPERTS, HIDDEN, INTERMEDIATE, F.silu)
    for name in order:
        if name == unpacked:
            layer.fill(f"{name}.weight", numbers[name].contiguous())
        else:
            kind = packed_experts(blocks).quant_types[name]
            layer = layer.pack(f"{name}.weight", blocks[name], kind, torch.float32)
    slots = {slot.name: slot for slot in layer.slots()}
    assert slots.keys() == {f"{name}.weight" for name in TYPES}
    for name, matrix in numbers.items():
        slot = slots[f"{name}.weight"]
        assert slot.shape == matrix.shape
        assert slot.quant_type.name == ("F32" if name == unpacked else TYPES[name])
        stored = matrix.contiguous().view(torch.uint8) if name == unpacked else blocks[name]
        assert torch.equal(slot.read(), stored)
    # Those that are blocks are the very memory they were given in.
    assert all(slots[f"{n}.weight"].read().data_ptr() == blocks[n].data_ptr() for n in TYPES if n != unpacked)


def test_packing_one_matrix_keeps_the_others(reference, blocks):
    kind = packed_experts(blocks).quant_types["up_proj"]
    layer = plain(reference.state_dict()).pack("up_proj.weight", blocks["up_proj"], kind, torch.float32)
    state, numbers = layer.dequantize().state_dict(), matrices(reference)
    assert torch.equal(state["gate_up_proj"][:, :INTERMEDIATE], numbers["gate_proj"])
    assert torch.equal(state["down_proj"], numbers["down_proj"])
    assert torch.equal(layer.up_proj, blocks["up_proj"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_of_the_activations(blocks, rounded, dtype):
    x, chosen, weights = routed(5)
    output = packed_experts(blocks)(x.to(dtype), chosen, weights.to(dtype))
    assert output.dtype == dtype
    expected = plain(rounded)(x, chosen, weights)
    assert_close(output.float(), expected, atol=0.05 * expected.abs().max().item(), rtol=0)


def test_gates_calculate_in_the_dtype_of_their_weights():
    gate = Gate(HIDDEN, EXPERTS)
    torch.nn.init.normal_(gate.weight)
    x = torch.randn(3, HIDDEN).bfloat16()
    assert torch.equal(gate(x), torch.nn.functional.linear(x.float(), gate.weight))


@pytest.mark.parametrize("shape", [(1, HIDDEN), (HIDDEN,)], ids=["row", "vector"])
def test_a_gate_with_one_output_lies_in_files_as_it_came(shape):
    gate, weights = Gate(HIDDEN, 1), torch.randn(shape)
    (slot,) = gate.slots()
    assert shape in (slot.shape, slot.also)
    gate.fill("weight", weights)
    (slot,) = gate.slots()
    assert slot.shape == shape
    assert torch.equal(slot.read(), weights)
    assert gate.weight.shape == (1, HIDDEN)


@pytest.mark.parametrize("masked", [False, True])
def test_load_balancing_loss(masked):
    generator = torch.Generator().manual_seed(0)
    logits = tuple(2 * torch.randn(2 * 9, EXPERTS, generator=generator) for _ in range(4))
    mask = (torch.arange(9) >= torch.tensor([[4], [0]])).long() if masked else None
    expected = load_balancing_loss_func(logits, EXPERTS, CHOICES, mask)
    assert_close(load_balancing_loss(logits, CHOICES, mask), expected)


def test_load_balancing_loss_of_an_even_spread():
    """Switch Transformers: it is least, 1 a choice, when tokens and probabilities are spread evenly."""
    logits = 1e-6 * torch.eye(EXPERTS)
    assert_close(load_balancing_loss([logits], 1), torch.tensor(1.0))
