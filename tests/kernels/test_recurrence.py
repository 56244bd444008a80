"""The recurrences' operators against loops over positions in float64, forward and backward."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels import loops
from torchgguf import nn
from torchgguf.kernels.recurrence.ops import RECURRENCE_REFERENCE

# How much a position decays the state: hardly, by a few percent, to nothing, all of them.
DECAYS = {"weak": (1e-6, 1e-3), "middle": (0.01, 1.0), "strong": (20.0, 1000.0), "mixed": (1e-5, 300.0)}
LENGTHS = [0, 1, 2, 63, 64, 65, 300]


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def decays(kind: str, *shape: int) -> Tensor:
    """Return negative numbers between two bounds, evenly in their logarithms."""
    low, high = (torch.tensor(bound, dtype=torch.float64).log() for bound in DECAYS[kind])
    return -(low + (high - low) * torch.rand(shape, dtype=torch.float64)).exp()


def gated_delta_rule(
    length: int, kind: str, keys: int = 2, values: int = 4, n: int = 24, v: int = 20
) -> dict:
    unit = torch.nn.functional.normalize
    return {
        "query": unit(numbers(2, length, keys, n), dim=-1),
        "key": unit(numbers(2, length, keys, n), dim=-1),
        "value": numbers(2, length, values, v),
        "decay": decays(kind, 2, length, values),
        "beta": torch.rand(2, length, values, dtype=torch.float64),
        "state": numbers(2, values, n, v),
    }


def channel_delta_rule(length: int, kind: str) -> dict:
    return gated_delta_rule(length, kind) | {"decay": decays(kind, 2, length, 4, 24)}


def selective_scan(length: int, kind: str, channels: int = 21, n: int = 5) -> dict:
    step = -decays(kind, 2, length, channels)
    return {
        # The step size is a factor on what is added, too.
        "x": numbers(2, length, channels) / step.clamp(min=1),
        "step_size": step,
        "a": -1 - torch.rand(channels, n, dtype=torch.float64),
        "b": numbers(2, length, n),
        "c": numbers(2, length, n),
        "state": numbers(2, channels, n),
    }


def state_space_scan(length: int, kind: str, heads: int = 6, groups: int = 2) -> dict:
    step = -decays(kind, 2, length, heads)
    return {
        "x": numbers(2, length, heads, 20) / step.clamp(min=1)[..., None],
        "step_size": step,
        "a": -1 - torch.rand(heads, dtype=torch.float64),
        "b": numbers(2, length, groups, 24),
        "c": numbers(2, length, groups, 24),
        "state": numbers(2, heads, 20, 24),
    }


CASES: dict[str, tuple[str, Callable[..., dict]]] = {
    "gated_delta_rule": ("gated_delta_rule", gated_delta_rule),
    "channel_delta_rule": ("gated_delta_rule", channel_delta_rule),
    "selective_scan": ("selective_scan", selective_scan),
    "state_space_scan": ("state_space_scan", state_space_scan),
}
each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def made(case: str, length: int, kind: str = "middle", dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return the arguments of a case, rounded to `dtype`."""
    return [x.to(dtype) for x in CASES[case][1](length, kind).values()]


def exact(case: str, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    return getattr(loops, CASES[case][0])(*(x.double() for x in inputs))


def operator(case: str) -> Callable[..., tuple[Tensor, Tensor]]:
    return getattr(nn, CASES[case][0])


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Each number is right to `tolerance` of the largest ones."""
    assert actual.shape == expected.shape and actual.isfinite().all()
    if expected.numel():
        scale = expected.abs().amax().item()
        assert (actual.double() - expected).abs().amax().item() <= tolerance * scale + 1e-30


@each_case
@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("length", LENGTHS)
def test_outputs_and_states(case, kind, length, isa):
    inputs = made(case, length, kind, torch.float32)
    for actual, expected in zip(operator(case)(*inputs), exact(case, inputs), strict=True):
        assert actual.dtype is torch.float32
        assert_close(actual, expected, 1e-5)


@each_case
def test_a_text_in_pieces_is_read_as_at_once(case, isa):
    inputs = made(case, 150, dtype=torch.float32)
    expected = exact(case, inputs)
    along = [x.dim() > 1 and x.shape[1] == 150 for x in inputs]
    state, outputs, start = inputs[-1], [], 0
    for length in (1, 2, 70, 64, 1, 5, 7):
        piece = [x[:, start : start + length] if text else x for x, text in zip(inputs, along, strict=True)]
        output, state = operator(case)(*piece[:-1], state)
        outputs.append(output)
        start += length
    assert start == 150
    assert_close(torch.cat(outputs, dim=1), expected[0], 1e-5)
    assert_close(state, expected[1], 1e-5)


def gradients(function: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor]) -> list[Tensor]:
    """Return the gradients of all inputs, of a function that reads outputs and the state after them."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    output, state = function(*leaves)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape).sin()
    ((output * weights).sum() + (state.sin() * 3).sum()).backward()
    return [x.grad for x in leaves]


@each_case
@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("length", [1, 2, 63, 130])
def test_gradients(case, kind, length, isa):
    inputs = made(case, length, kind, torch.float32)
    expected = gradients(lambda *x: exact(case, list(x)), [x.double() for x in inputs])
    for actual, right in zip(gradients(operator(case), inputs), expected, strict=True):
        assert actual.dtype is torch.float32
        assert_close(actual, right, 3e-5)


def test_gradients_that_many_heads_or_channels_share():
    """They are summed over slices of these, of which some are smaller than others."""
    many = (
        ("gated_delta_rule", gated_delta_rule(20, "middle", keys=2, values=12)),
        ("gated_delta_rule", gated_delta_rule(20, "middle", keys=1, values=5)),
        ("state_space_scan", state_space_scan(20, "middle", heads=16)),
        ("selective_scan", selective_scan(70, "middle", channels=650)),
    )
    for case, arguments in many:
        inputs = [x.float() for x in arguments.values()]
        expected = gradients(getattr(loops, case), [x.double() for x in inputs])
        for actual, right in zip(gradients(operator(case), inputs), expected, strict=True):
            assert_close(actual, right, 3e-5)


@each_case
@pytest.mark.parametrize("length", [0, 3, 70])
def test_the_reference_and_its_gradients_are_exact(case, length):
    """In float64, where no rounding hides a term that is missing."""
    inputs = made(case, length)
    name = CASES[case][0]
    for actual, expected in zip(RECURRENCE_REFERENCE[name](*inputs), exact(case, inputs), strict=True):
        assert_close(actual, expected, 1e-12)
    expected_grads = gradients(lambda *x: exact(case, list(x)), inputs) if length else None
    if expected_grads:
        for actual, right in zip(gradients(operator(case), inputs), expected_grads, strict=True):
            assert_close(actual, right, 1e-11)


@each_case
def test_autocast_leaves_the_reference_alone(case):
    """Its products would be rounded to bfloat16, and with them the state."""
    inputs = made(case, 70, dtype=torch.float32)
    name = CASES[case][0]
    grads = [torch.randn_like(x) for x in RECURRENCE_REFERENCE[name](*inputs)]
    for called, arguments in ((name, inputs), (f"{name}_backward", [*grads, *inputs])):
        expected = RECURRENCE_REFERENCE[called](*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            actual = RECURRENCE_REFERENCE[called](*arguments)
        for one, other in zip(actual, expected, strict=True):
            assert torch.equal(one, other)


@each_case
def test_padding_leaves_the_state(case):
    inputs = made(case, 70, dtype=torch.float32)
    still = [
        torch.zeros_like(x) if i in ((3, 4) if "delta" in case else (1,)) else x for i, x in enumerate(inputs)
    ]
    _, state = operator(case)(*still)
    assert torch.equal(state, inputs[-1])


@each_case
def test_bfloat16_is_read_and_the_state_stays_float32(case, isa):
    rounded = made(case, 70, dtype=torch.bfloat16)
    inputs = [*rounded[:-1], rounded[-1].float()]
    output, state = operator(case)(*inputs)
    expected = exact(case, inputs)
    assert (output.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, expected[0], 4e-3)
    assert_close(state, expected[1], 1e-5)
    grads = gradients(operator(case), inputs)
    assert [g.dtype for g in grads] == [x.dtype for x in inputs]
    for actual, right in zip(grads, gradients(operator(case), [x.float() for x in inputs]), strict=True):
        assert_close(actual, right.double(), 2e-2)


@each_case
@pytest.mark.parametrize("length", [1, 70])
def test_operators_pass_torchs_checks(case, length):
    inputs = [x.requires_grad_() for x in made(case, length, dtype=torch.float32)]
    name = CASES[case][0]
    torch.library.opcheck(getattr(torch.ops.torchgguf, name).default, inputs)
    plain = [x.detach() for x in inputs]
    output, state = operator(case)(*plain)
    backward = getattr(torch.ops.torchgguf, f"{name}_backward").default
    torch.library.opcheck(backward, (output, state, *plain))


@each_case
def test_a_wrong_shape_is_named(case):
    inputs = CASES[case][1](3, "middle")
    for name, right in inputs.items():
        wrong = {**inputs, name: torch.cat([right, right], dim=-1)}
        with pytest.raises(ValueError, match=r"must (have|be) .*got"):
            operator(case)(*wrong.values())


@each_case
def test_strided_tensors_are_read_right(case, isa):
    inputs = made(case, 66, dtype=torch.float32)
    strided = [torch.stack([x, x + 1], dim=-1)[..., 0] for x in inputs]
    for actual, expected in zip(operator(case)(*strided), operator(case)(*inputs), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("length", [0, 1, 2, 15, 16, 17, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_convolution(length, size, isa):
    x, weight, bias = numbers(2, 21, size - 1 + length), numbers(21, size), numbers(21)
    for b in (None, bias):
        inputs = [None if each is None else each.float() for each in (x, weight, b)]
        right = loops.causal_convolution(*(None if each is None else each.double() for each in inputs))
        assert_close(nn.causal_convolution(*inputs), right, 1e-6)
        assert_close(nn.causal_convolution(x, weight, b), loops.causal_convolution(x, weight, b), 1e-14)
    rounded = x.bfloat16()
    result = nn.causal_convolution(rounded, weight)
    assert result.dtype is torch.bfloat16
    assert_close(result, loops.causal_convolution(rounded.double(), weight), 2e-2)


def test_convolution_is_differentiated_twice_and_passes_torchs_checks():
    inputs = (numbers(2, 3, 9), numbers(3, 4), numbers(3))
    leaves = tuple(x.requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(nn.causal_convolution, leaves)
    assert torch.autograd.gradgradcheck(nn.causal_convolution, leaves)
    checked = [x.detach().float().requires_grad_() for x in leaves]
    torch.library.opcheck(torch.ops.torchgguf.causal_convolution.default, checked)
    with pytest.raises(ValueError, match="x must have 3 channels"):
        nn.causal_convolution(numbers(2, 4, 9), *leaves[1:])
    with pytest.raises(ValueError, match="x must have at least 3 positions"):
        nn.causal_convolution(numbers(2, 3, 2), *leaves[1:])


def test_compiled_graphs_contain_the_operators():
    """A layer, forward and backward in whole graphs, for texts of other lengths too."""

    def layer(kernel: Tensor, *inputs: Tensor) -> Tensor:
        x, *rest = inputs
        mixed = nn.causal_convolution(x, kernel)
        output, state = nn.selective_scan(mixed.transpose(1, 2), *rest)
        return output.sum() + state.sum()

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (3, 70):
        _, *rest = made("selective_scan", length, dtype=torch.float32)
        arguments = [torch.randn(21, 4), torch.randn(2, 21, length + 3), *rest]
        found = []
        for function in (layer, compiled):
            leaves = [each.clone().requires_grad_() for each in arguments]
            function(*leaves).backward()
            found.append([each.grad for each in leaves])
        for actual, expected in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected)
