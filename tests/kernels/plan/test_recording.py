"""Recorded steps: what is written down computes what torch did."""

import pytest
import torch
import torch.nn.functional as F

from torchgguf.kernels.plan import (
    BoundProgram,
    NativeExecutor,
    PlanError,
    Recorder,
    ReferenceExecutor,
    has_native_executor,
)

EXECUTORS = [ReferenceExecutor, *([NativeExecutor] if has_native_executor() else [])]

x, gain = torch.randn(1, 1, 8), torch.rand(8)
wide, narrow = torch.randn(12, 8), torch.randn(4, 8)
heads, cos, sin = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
stack, chosen = torch.randn(3, 4, 8), torch.tensor([2, 0])


def products():
    return F.silu(F.linear(x, wide)) * F.linear(x, wide, torch.ones(12))


def rotation():
    return torch.addcmul(heads * cos, heads.roll(4, -1), sin)


def added_norm():
    total = x + x.square()
    return F.rms_norm(total, (8,), gain, 1e-5) + total


def experts():
    first, second = stack.index_select(0, chosen).unbind()
    return F.linear(x, first) + F.linear(x, second)


def written_into():
    allowed = torch.ones(8, dtype=torch.bool)
    allowed &= x[0, 0] > 0
    return x.masked_fill(~allowed, -1.0)


STEPS = {
    products: ["linear", "binary:silu_mul"],
    rotation: ["rope"],
    added_norm: ["unary:square", "rms_norm:add", "binary:add"],
    experts: ["linear_indexed", "linear_indexed", "binary:add"],
    written_into: ["fill", "binary:gt", "binary:and", "unary:not", "where"],
}


@torch.inference_mode()
def record(step):
    with Recorder() as recorder:
        result = step()
    return recorder.program(result), result


@pytest.mark.parametrize("make_executor", EXECUTORS)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_program_computes_what_was_recorded(step, make_executor):
    program, expected = record(step)
    assert [each.op for each in program.instructions] == STEPS[step]
    bound = BoundProgram(program, {})
    executor = make_executor(bound)
    for _ in range(2):
        executor.run()
        torch.testing.assert_close(bound.output, expected)
    x.mul_(-2)  # what was there before the step is read anew
    executor.run()
    torch.testing.assert_close(bound.output, step())


def test_the_same_step_is_the_same_program():
    assert record(added_norm)[0].difference(record(added_norm)[0]) is None


def test_what_python_computed_differs():
    counts = iter((1.0, 2.0))
    one, two = (record(lambda: x * next(counts))[0] for _ in range(2))
    assert one.difference(two) == "an operator, binary:mul"


def test_constants_are_compared_by_their_values():
    counts = iter((1.0, 1.0, 2.0))
    one, two, three = (record(lambda: x * torch.tensor(next(counts)))[0] for _ in range(3))
    assert one.difference(two) is None
    assert one.difference(three) == "a tensor that is read"


def test_a_value_that_decides_is_named():
    with pytest.raises(PlanError, match=r"aten\._local_scalar_dense\.default has no instruction"):
        record(lambda: x if float(x.sum()) > 0 else -x)
