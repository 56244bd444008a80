"""No instruction reads or writes behind the end of a tensor, which may be where memory ends."""

from contextlib import ExitStack

import pytest
import torch

from tests.guard_page import guarded, needs_guard_pages
from tests.kernels.plan.programs import numbers, run
from torchgguf.quants import quant_type, quantize

pytestmark = [pytest.mark.usefixtures("isa"), needs_guard_pages]

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ODD = (1, 3, 15, 17, 33, 515)


def run_guarded(op, tensors, ints=(), floats=()):
    """Compute an instruction on copies that each end where their page does."""
    with ExitStack() as stack:
        held = [None if tensor is None else stack.enter_context(guarded(tensor)) for tensor in tensors]
        run(op, held, ints, floats, threads=2)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", ODD)
def test_rows(n, dtype):
    x, other, weight = (numbers(3, n, dtype=dtype, seed=seed) for seed in (0, 1, 2))
    for name in ("exp", "gelu", "tanh"):
        run_guarded(f"unary:{name}", [x, other])
    run_guarded("binary:add", [x, other, weight])
    run_guarded("binary:mul", [x, other, weight[0]])
    run_guarded("copy", [x, numbers(3, n, dtype=torch.int64)])
    run_guarded("reduce:sum", [x[:, 0].contiguous(), other], ints=[1])
    run_guarded("softmax", [x, other], ints=[1])
    run_guarded("softmax", [x, other], ints=[0])
    run_guarded("rms_norm", [x, other, weight[0]], floats=[1e-6])
    run_guarded("layer_norm:add", [x, other, weight, x, weight[0], other[0]], floats=[1e-6])
    run_guarded(
        "linear", [x[:, :2].contiguous(), other, weight[:2].contiguous()] if n > 1 else [x, x, x[:1]], [1, -1]
    )
    run_guarded("matmul", [numbers(3, 3, dtype=dtype), x, other.t().contiguous()])
    if n > 1:
        cos = numbers(1, n // 2 * 2, dtype=dtype)
        for neighbours in (0, 1):
            run_guarded("rope", [x, other, cos, cos], [neighbours])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("keys", "size"), [(1, 3), (17, 8), (37, 20), (130, 33), (64, 64)])
def test_attention(keys, size, dtype):
    q, out = numbers(1, 6, 1, size), numbers(1, 6, 1, size)
    k, v = numbers(1, 2, keys, size, dtype=dtype, seed=1), numbers(1, 2, keys, size, dtype=dtype, seed=2)
    allowed = torch.ones(1, 1, 1, keys, dtype=torch.bool)
    for mask in (None, allowed, torch.zeros(1, 1, 1, keys)):
        run_guarded("attention", [out, q, k, v, mask, numbers(6)], floats=[0.1, 3.0])


def test_what_indices_choose():
    kind = quant_type("Q6_K")
    packed = quantize(numbers(3, 256), kind)
    run_guarded("embedding", [numbers(1, 256), torch.tensor([2]), packed], [kind.id])
    run_guarded("linear", [numbers(1, 3), numbers(1, 256), packed, numbers(3)], [1, kind.id])
    run_guarded(
        "linear_indexed",
        [numbers(1, 1), numbers(1, 256), packed.view(3, 1, -1), torch.tensor([2])],
        [kind.id],
    )
    x, index = numbers(5, 7), torch.tensor([4])
    run_guarded("index_select", [numbers(1, 7), x, index], [0])
    run_guarded("index_copy", [x, numbers(5, 1), torch.tensor([6])], [1])
    run_guarded("gather", [numbers(1, 7), x, index.expand(1, 7).contiguous()], [0])
    run_guarded("topk", [numbers(5, 2), torch.zeros(5, 2, dtype=torch.int64), x], [2, 1, 1, 1])
