"""Instructions whose rows are computed as a whole, beside torch."""

import pytest
import torch
from torch.nn import functional as F

from tests.kernels.plan.programs import numbers, run

pytestmark = pytest.mark.usefixtures("isa")

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def assert_near(out: torch.Tensor, expected: torch.Tensor) -> None:
    """Sums in another order differ by a few units of the last place."""
    tolerance = TOLERANCE[out.dtype]
    torch.testing.assert_close(out, expected.to(out.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions_of_floats(name, dims):
    function = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}[name]
    for dtype in FLOATS:
        x = numbers(3, 5, 1030, dtype=dtype)
        for keepdim in (False, True):
            expected = function(x.float(), dims, keepdim=keepdim)
            out = torch.empty_like(expected, dtype=dtype)
            run(f"reduce:{name}", [out, x], ints=dims)
            torch.testing.assert_close(
                out.float(), expected.to(dtype).float(), rtol=TOLERANCE[dtype], atol=3e-4
            )


@pytest.mark.parametrize("name", ["sum", "max", "min", "any", "all", "prod"])
def test_reductions_of_integers(name):
    x = numbers(4, 6, 9, dtype=torch.int64).transpose(0, 2)
    expected = {
        "sum": x.sum(1),
        "max": x.amax(1),
        "min": x.amin(1),
        "any": x.any(1),
        "all": x.all(1),
        "prod": x.prod(1),
    }[name]
    out = torch.empty_like(expected)
    run(f"reduce:{name}", [out, x], ints=[1])
    assert torch.equal(out, expected)


def test_an_extreme_is_nan_where_a_number_is():
    x = numbers(3, 40)
    x[1, 17] = torch.nan
    for name, function in (("max", torch.amax), ("min", torch.amin)):
        out = torch.empty(3)
        run(f"reduce:{name}", [out, x], ints=[1])
        torch.testing.assert_close(out, function(x, 1), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("shape", "dim"), [((3, 7, 33), -1), ((3, 33, 7), 1), ((1200,), 0), ((2, 1), 1), ((2, 5), 1)]
)
def test_softmax(shape, dim, dtype):
    x = numbers(*shape, dtype=dtype) * 4
    out = torch.empty_like(x)
    run("softmax", [out, x], ints=[dim])
    assert_near(out, x.float().softmax(dim))
    run("log_softmax", [out, x], ints=[dim])
    assert_near(out, x.float().log_softmax(dim))


def test_softmax_of_what_is_partly_forbidden():
    x = numbers(2, 21)
    x[0, 5:] = -torch.inf
    out = torch.empty_like(x)
    run("softmax", [out, x], ints=[1])
    assert_near(out, x.softmax(1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("columns", [1, 31, 576, 1500])
def test_normalizations(columns, dtype):
    x, added = numbers(2, 3, columns, dtype=dtype) + 1, numbers(2, 3, columns, dtype=dtype, seed=3)
    weight, bias = numbers(columns, dtype=dtype, seed=1), numbers(columns, dtype=dtype, seed=2)
    eps = 1e-5
    for w, b in ((weight, bias), (weight, None), (None, None)):
        scale, offset = (None if part is None else part.float() for part in (w, b))
        for source in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
            out, total = torch.empty_like(x), torch.empty_like(x)
            run("layer_norm", [out, source, w, b], floats=[eps])
            normed = F.layer_norm(x.float(), (columns,), scale, offset, eps)
            torch.testing.assert_close(
                out.float(), normed, rtol=TOLERANCE[dtype] * 2, atol=TOLERANCE[dtype] * 8
            )
            if b is None:
                run("rms_norm", [out, source, w], floats=[eps])
                assert_near(out, F.rms_norm(x.float(), (columns,), scale, eps))
                run("rms_norm:add", [out, total, source, added, w], floats=[eps])
                summed = x.float() + added.float()
                assert_near(total, summed)
                torch.testing.assert_close(
                    out.float(),
                    F.rms_norm(summed, (columns,), scale, eps),
                    rtol=TOLERANCE[dtype] * 2,
                    atol=TOLERANCE[dtype] * 2,
                )


def test_the_sum_may_replace_what_is_added_to():
    x, added, weight = numbers(1, 1, 576), numbers(1, 1, 576, seed=1), numbers(576, seed=2)
    expected = x + added
    out = torch.empty_like(x)
    run("rms_norm:add", [out, x, x, added, weight], floats=[1e-6])
    assert torch.equal(x, expected)
    assert_near(out, F.rms_norm(expected, (576,), weight, 1e-6))


def test_many_rows_are_split():
    x, weight = numbers(700, 130), numbers(130)
    out = torch.empty_like(x)
    run("rms_norm", [out, x, weight], floats=[1e-6], threads=3)
    assert_near(out, F.rms_norm(x, (130,), weight, 1e-6))
    run("softmax", [out, x], ints=[1], threads=2)
    assert_near(out, x.softmax(1))
    sums = torch.empty(700)
    run("reduce:sum", [sums, x], ints=[1], threads=2)
    torch.testing.assert_close(sums, x.sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_order(dim):
    for dtype in FLOATS:
        x = torch.randperm(4 * 6 * 10, generator=torch.Generator().manual_seed(1)).reshape(4, 6, 10).to(dtype)
        values, indices = x.topk(3, dim)
        for largest in (True, False):
            run("topk", [values, indices, x], ints=[3, dim, largest, 1])
            expected = x.topk(3, dim, largest=largest)
            assert torch.equal(values, expected.values) and torch.equal(indices, expected.indices)
        values, indices = torch.empty_like(x), torch.empty(x.shape, dtype=torch.int64)
        for descending in (False, True):
            run("sort", [values, indices, x], ints=[dim, descending])
            expected = x.sort(dim, descending=descending)
            assert torch.equal(values, expected.values) and torch.equal(indices, expected.indices)
        for keepdim in (False, True):
            best = torch.empty_like(x.argmax(dim, keepdim=keepdim))
            run("argmax", [best, x], ints=[dim])
            assert torch.equal(best, x.argmax(dim, keepdim=keepdim))


def test_equals_stay_in_their_order_and_nan_is_the_greatest():
    x = torch.tensor([1.0, 3.0, 3.0, torch.nan, -torch.inf, 1.0])
    values, indices = torch.empty(6), torch.empty(6, dtype=torch.int64)
    for descending in (False, True):
        run("sort", [values, indices, x], ints=[0, descending])
        assert torch.equal(indices, x.sort(stable=True, descending=descending).indices)


def test_cumulated_sums():
    for dtype, result in (
        (torch.float32, torch.float32),
        (torch.int64, torch.int64),
        (torch.bool, torch.int64),
    ):
        x = numbers(3, 8, 5, dtype=dtype)
        out = torch.empty(3, 8, 5, dtype=result)
        run("cumsum", [out, x], ints=[1])
        torch.testing.assert_close(out, x.cumsum(1))
