"""Rotations and steps of recurrences, beside the layers' own functions."""

import pytest
import torch

from tests.kernels.plan.programs import _native, described, numbers, run
from torchgguf.nn.rotary import rotate, rotate_neighbours

pytestmark = pytest.mark.usefixtures("isa")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rotated", [2, 24, 64])
def test_rotations(rotated, dtype):
    x = numbers(2, 3, 5, 64, dtype=dtype).transpose(1, 2)
    angles = numbers(2, 1, 1, rotated // 2, seed=1)
    cos = torch.cat((angles.cos(), angles.cos()), -1)
    sin = torch.cat((-angles.sin(), angles.sin()), -1)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    for neighbours, function in enumerate((rotate, rotate_neighbours)):
        out = torch.empty(2, 5, 3, 64, dtype=dtype)
        run("rope", [out, x, cos, sin], ints=[neighbours])
        torch.testing.assert_close(out.float(), function(x.float(), cos, sin), rtol=tolerance, atol=tolerance)
    expected = rotate(x.float(), cos, sin)
    run("rope", [x, x, cos, sin])
    torch.testing.assert_close(x.float(), expected, rtol=tolerance, atol=tolerance)


def test_rotations_of_other_sizes_are_refused():
    x, odd, long = (described(torch.zeros(1, size)) for size in (8, 3, 10))
    for cos in (odd, long):
        with pytest.raises(ValueError, match=r"^rope: the sizes of the last dimension do not match$"):
            _native.Program().add("rope", [x, x, cos, cos], [], [])


def compare(name, inputs, outputs, team=1):
    expected = getattr(torch.ops.torchgguf, name)(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    out = [torch.empty_like(each) for each in expected[:outputs]]
    run(name, [*out, *inputs], threads=team)
    for each, right in zip(out, expected, strict=True):
        assert torch.equal(each, right)


@pytest.mark.parametrize("team", [1, 2, 3])
def test_steps_are_those_of_the_operators(team):
    for length in (1, 3):
        x, weight, bias = numbers(2, 70, length + 3), numbers(70, 4, seed=1), numbers(70, seed=2)
        compare("causal_convolution", (x, weight, bias), 1, team)
        compare("causal_convolution", (x, weight, None), 1, team)
        q, k = numbers(2, length, 2, 12) / 4, numbers(2, length, 2, 12, seed=1) / 4
        value, beta = numbers(2, length, 6, 20, seed=2), numbers(2, length, 6, seed=3).sigmoid()
        for shape in ((2, length, 6), (2, length, 6, 12)):
            decay = -numbers(*shape, seed=4).abs()
            compare("gated_delta_rule", (q, k, value, decay, beta, numbers(2, 6, 12, 20)), 2, team)
        step = numbers(2, length, 37, seed=5).abs() / 9
        a, b, c = -numbers(37, 16).abs(), numbers(2, length, 16, seed=6), numbers(2, length, 16, seed=7)
        compare(
            "selective_scan", (numbers(2, length, 37), step, a, b, c, numbers(2, 37, 16, seed=8)), 2, team
        )
        step = numbers(2, length, 6, seed=5).abs() / 9
        b, c = numbers(2, length, 3, 24, seed=6), numbers(2, length, 3, 24, seed=7)
        inputs = (numbers(2, length, 6, 10), step, -numbers(6).abs(), b, c, numbers(2, 6, 10, 24, seed=8))
        compare("state_space_scan", inputs, 2, team)
