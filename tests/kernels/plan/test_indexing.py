"""Instructions that read or write where other tensors say, beside torch."""

import pytest
import torch

from tests.kernels.plan.programs import DTYPES, _native, described, numbers, run
from torchgguf.quants import dequantize, quant_types, quantize

pytestmark = pytest.mark.usefixtures("isa")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_plain_embeddings(dtype):
    weight, indices = numbers(11, 35, dtype=dtype), torch.tensor([[3, 10], [0, 3]])
    out = torch.empty(2, 2, 35, dtype=dtype)
    run("embedding", [out, indices, weight], ints=[-1])
    assert torch.equal(out, weight[indices])


@pytest.mark.parametrize(
    "kind", [kind for kind in quant_types() if kind.name in ("Q4_0", "Q6_K", "Q8_0")], ids=str
)
def test_packed_embeddings(kind):
    packed, indices = quantize(numbers(5, 512), kind), torch.tensor([4, 0, 4])
    expected = dequantize(packed, kind)[indices]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = torch.empty(3, 512, dtype=dtype)
        run("embedding", [out, indices, packed], ints=[kind.id])
        assert torch.equal(out, expected.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_slices(dim, dtype):
    x = numbers(4, 3, 5, dtype=dtype).transpose(0, 1)
    index = torch.tensor([2, 0])
    out = torch.empty_like(x.index_select(dim, index))
    run("index_select", [out, x, index], ints=[dim])
    assert torch.equal(out, x.index_select(dim, index))
    expected = x.clone().index_copy_(dim, index, out.neg() if dtype not in (torch.bool, torch.uint8) else out)
    source = out.neg() if dtype not in (torch.bool, torch.uint8) else out
    run("index_copy", [x, source, index], ints=[dim])
    assert torch.equal(x, expected)


def test_one_slice_by_a_number():
    x, index = numbers(4, 6), torch.tensor(2)
    out = torch.empty(4, 1)
    run("index_select", [out, x, index], ints=[1])
    assert torch.equal(out, x[:, 2:3])


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_elements(dim):
    for dtype in (torch.float32, torch.int64, torch.bool):
        x = numbers(4, 5, 6, dtype=dtype)
        index = torch.randint(0, 4, (3, 4, 2), generator=torch.Generator().manual_seed(0))
        out = torch.empty(3, 4, 2, dtype=dtype)
        run("gather", [out, x, index], ints=[dim])
        assert torch.equal(out, x.gather(dim, index))
        single = index[:, :1, :1] if dim == 0 else index[:1, :, :1] if dim == 1 else index[:1, :1, :]
        single = torch.arange(single.numel()).view_as(single)
        source = numbers(3, 4, 2, dtype=dtype, seed=1)
        expected = x.scatter(dim, single, source)
        run("scatter", [x, single, source], ints=[dim])
        assert torch.equal(x, expected)
        expected = x.scatter(dim, single, 1)
        run("scatter", [x, single], ints=[dim], floats=[1.0])
        assert torch.equal(x, expected)


@pytest.mark.parametrize("wrong", [-1, 3, 2**40])
def test_an_index_outside_is_an_error_and_touches_nothing(wrong):
    x, untouched, index = numbers(3, 4), torch.full((1, 4), 7.0), torch.tensor([wrong])
    before = x.clone()
    for op, tensors, ints in (
        ("index_select", [untouched, x, index], [0]),
        ("embedding", [untouched, index, x], [-1]),
        ("gather", [untouched, x, index.expand(1, 4)], [0]),
        ("index_copy", [x, untouched, index], [0]),
        ("scatter", [x, index.expand(1, 4), untouched], [0]),
    ):
        with pytest.raises(RuntimeError, match="outside of its tensor"):
            run(op, tensors, ints)
        assert torch.equal(untouched, torch.full((1, 4), 7.0)) and torch.equal(x, before)


def test_indices_are_read_when_the_program_runs():
    x, index, out = numbers(5, 4), torch.tensor([0]), torch.empty(1, 4)
    program = _native.Program()
    program.add("index_select", [described(out), described(x), described(index)], [0], [])
    program.add("unary:neg", [described(out), described(out)], [], [])
    for row in (3, 1, 4):
        index.fill_(row)
        program.run(2)
        assert torch.equal(out[0], -x[row])
    assert [name for name, _ in program.profile(1)] == ["index_select", "unary:neg"]
