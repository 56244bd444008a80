"""Instructions that compute element by element, beside torch."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.kernels.plan.programs import DTYPES, _native, described, numbers, run

pytestmark = pytest.mark.usefixtures("isa")

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.uint8, torch.bool)

UNARY = {
    "neg": torch.neg,
    "exp": torch.exp,
    "log": lambda x: torch.log(x.abs()),
    "log1p": lambda x: torch.log1p(x.abs()),
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "rsqrt": lambda x: torch.rsqrt(x.abs()),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "softplus": F.softplus,
    "abs": torch.abs,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "sin": torch.sin,
    "cos": torch.cos,
    "not": torch.logical_not,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "erf": torch.erf,
    "sign": torch.sign,
}
POSITIVE = ("log", "log1p", "sqrt", "rsqrt")
BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "rsub": torch.rsub,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
    "pow": lambda a, b: torch.pow(a, b),
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "floordiv": torch.floor_divide,
    "remainder": torch.remainder,
    "silu_mul": lambda a, b: F.silu(a) * b,
    "gelu_mul": lambda a, b: F.gelu(a) * b,
    "gelu_tanh_mul": lambda a, b: F.gelu(a, approximate="tanh") * b,
}
BITS = {"and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor}


def assert_near(out: torch.Tensor, expected: torch.Tensor) -> None:
    """FP32 to a few units of the last place; what is rounded once more, to one of its own."""
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}.get(out.dtype, 0.0)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(name, dtype):
    x = numbers(3, 5, 37, dtype=dtype)
    x = x.abs() if name in POSITIVE else x
    expected = UNARY[name](x.float())
    expected = expected if expected.dtype == torch.bool else expected.to(dtype)
    for source in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
        out = torch.empty_like(x, dtype=expected.dtype)
        run(f"unary:{name}", [out, source])
        assert_near(out, expected)


@pytest.mark.parametrize(
    "name", ["exp", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "relu", "softplus", "erf"]
)
def test_extreme_numbers(name):
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 0.1, -0.1, 20.0, -20.0, 80.0, -80.0, math.inf, math.nan])
    out = torch.empty_like(x)
    run(f"unary:{name}", [out, x])
    assert_near(out, UNARY[name](x))


@pytest.mark.parametrize("name", ["neg", "relu", "abs", "square", "not", "sign"])
def test_functions_of_one_integer(name):
    x = numbers(4, 33, dtype=torch.int64)
    expected = UNARY[name](x)
    out = torch.empty_like(expected)
    run(f"unary:{name}", [out, x])
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_numbers(name, dtype):
    a, b = numbers(2, 1, 70, dtype=dtype), numbers(3, 70, dtype=dtype, seed=1)
    if name == "pow":
        a = a.abs()
    if name in ("floordiv", "remainder") and dtype != torch.float32:
        pytest.skip("torch rounds the quotient before it takes its floor")
    expected = BINARY[name](a.float(), b.float())
    expected = expected if expected.dtype == torch.bool else expected.to(dtype)
    out = torch.empty(2, 3, 70, dtype=expected.dtype)
    run(f"binary:{name}", [out, a, b])
    if name in ("remainder", "gelu_mul"):  # differences of numbers that are larger
        torch.testing.assert_close(out, expected, rtol=1e-5 if dtype == torch.float32 else 8e-3, atol=5e-6)
    else:
        assert_near(out, expected)


@pytest.mark.parametrize(
    "name", [*BITS, *(name for name in BINARY if not name.endswith("_mul") and name not in ("div", "pow"))]
)
def test_functions_of_two_integers(name):
    function = {**BITS, **BINARY}[name]
    a, b = numbers(5, 40, dtype=torch.int64), numbers(5, 40, dtype=torch.int64, seed=1)
    if name in ("floordiv", "remainder"):
        b[b == 0] = -3
    expected = function(a, b)
    out = torch.empty_like(expected)
    run(f"binary:{name}", [out, a, b])
    assert torch.equal(out, expected)
    if name not in BITS:
        expected = function(a, torch.tensor(-2))
        run(f"binary:{name}", [out, a, None], floats=[1.0, -2.0])
        assert torch.equal(out, expected)


def test_alpha_and_scalars():
    a, b = numbers(3, 19), numbers(3, 19, seed=1)
    out = torch.empty_like(a)
    run("binary:add", [out, a, b], floats=[0.5])
    assert_near(out, torch.add(a, b, alpha=0.5))
    run("binary:sub", [out, None, b], floats=[2.0, 7.0])
    assert_near(out, 7.0 - 2.0 * b)
    run("binary:mul", [out, a, None], floats=[1.0, 3.0])
    assert_near(out, a * 3)


@pytest.mark.parametrize("name", BITS)
def test_functions_of_two_truths(name):
    a, b = numbers(3, 1, 9, dtype=torch.bool), numbers(4, 9, dtype=torch.bool, seed=1)
    out = torch.empty(3, 4, 9, dtype=torch.bool)
    run(f"binary:{name}", [out, a, b])
    assert torch.equal(out, BITS[name](a, b))


@pytest.mark.parametrize("source", DTYPES, ids=str)
@pytest.mark.parametrize("target", DTYPES, ids=str)
def test_copies_convert(source, target):
    x = numbers(6, 1, 21, dtype=source)
    if target == torch.uint8 and source != torch.bool:
        x = x.abs()
    out = torch.empty(2, 6, 4, 21, dtype=target).transpose(1, 2)
    run("copy", [out, x.transpose(0, 1)])
    assert torch.equal(out, x.to(target).transpose(0, 1).expand(2, 4, 6, 21))


def test_every_half_is_converted_and_back():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        x = bits.view(dtype)
        wide, back = torch.empty(len(x)), torch.empty_like(x)
        run("copy", [wide, x])
        torch.testing.assert_close(wide, x.float(), rtol=0, atol=0, equal_nan=True)
        run("copy", [back, wide])
        torch.testing.assert_close(back, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounding_is_that_of_torch(dtype):
    x = torch.randn(4096) * torch.logspace(-9, 6, 4096)
    out = torch.empty(4096, dtype=dtype)
    run("copy", [out, x])
    assert torch.equal(out, x.to(dtype))


def test_choices_and_limits():
    condition, a, b = numbers(4, 1, dtype=torch.bool), numbers(1, 30), numbers(4, 30, seed=1)
    out = torch.empty(4, 30)
    run("where", [out, condition, a, b])
    assert torch.equal(out, torch.where(condition, a, b))
    run("where", [out, condition, a, None], floats=[0.0, -math.inf])
    assert torch.equal(out, torch.where(condition, a, -math.inf))
    run("where", [out, condition, None, None], floats=[2.0, 3.0])
    assert torch.equal(out, torch.where(condition, 2.0, 3.0).expand(4, 30))
    run("clamp", [out, b], ints=[1, 0], floats=[-0.5, 0.0])
    assert torch.equal(out, b.clamp(min=-0.5))
    run("clamp", [out, b], ints=[1, 1], floats=[-0.5, 0.25])
    assert torch.equal(out, b.clamp(-0.5, 0.25))
    run("addcmul", [out, b, a, a], floats=[0.5])
    assert_near(out, torch.addcmul(b, a, a, value=0.5))
    places = numbers(50, dtype=torch.int64)
    limited = torch.empty_like(places)
    run("clamp", [limited, places], ints=[1, 1], floats=[-1.0, 2.0])
    assert torch.equal(limited, places.clamp(-1, 2))


def test_fill_arange_cat_and_roll():
    out = torch.empty(3, 5).t()
    run("fill", [out], floats=[2.5])
    assert torch.equal(out, torch.full_like(out, 2.5))
    for dtype in (torch.int64, torch.float32):
        row = torch.empty(9, dtype=dtype)
        run("arange", [row], ints=[3, 2])
        assert torch.equal(row, torch.arange(3, 21, 2).to(dtype))
    a, b = numbers(2, 3, 7), numbers(2, 1, 7, seed=1)
    joined = torch.empty(2, 4, 7)
    run("cat", [joined, a, b], ints=[1])
    assert torch.equal(joined, torch.cat((a, b), 1))
    turned = torch.empty_like(a)
    for shift in (0, 1, -2, 9):
        run("roll", [turned, a], ints=[shift, -1])
        assert torch.equal(turned, a.roll(shift, -1))


@pytest.mark.parametrize("team", [2, 3])
def test_large_ones_are_split(team):
    a, b = numbers(301, 700), numbers(700, seed=1)
    out = torch.empty(700, 301).t()
    run("binary:mul", [out, a, b], threads=team)
    assert torch.equal(out, a * b)


def test_in_place():
    x = numbers(3, 50)
    expected = x * 2 + x
    run("binary:add", [x, x, x], floats=[2.0])
    assert_near(x, expected)


@pytest.mark.parametrize(
    ("op", "tensors", "ints", "floats", "message"),
    [
        ("unary:nothing", (2, 2), (), (), "unary:nothing: there is no such function"),
        ("nothing", (2,), (), (), "nothing: there is no such instruction"),
        ("unary:exp", (2, 3), (), (), "unary:exp: a size of 3 does not broadcast to 2"),
        ("copy", (2,), (), (), "copy: tensor 1 is missing"),
        ("fill", (2,), (), (), "fill: number 0 is missing"),
        ("cat", (5, 2, 2), (0,), (), "cat: the tensors are shorter than the result"),
        ("cat", (3, 2, 2), (0,), (), "cat: the tensors are longer than the result"),
        ("roll", (3, 3), (1, 1), (), "roll: there is no dimension 1"),
    ],
)
def test_what_is_refused(op, tensors, ints, floats, message):
    program = _native.Program()
    held = [torch.zeros(size) for size in tensors]
    with pytest.raises(ValueError, match=f"^{message}$"):
        program.add(op, [described(tensor) for tensor in held], list(ints), list(floats))
    assert len(program) == 0


def test_unknown_dtypes_and_alignments_are_refused():
    x = torch.zeros(4)
    for wrong in (
        (x.data_ptr(), 7, (4,), (1,)),
        (x.data_ptr() + 1, 0, (3,), (1,)),
        (x.data_ptr(), 0, (-1,), (1,)),
    ):
        with pytest.raises(ValueError, match=r"^copy: "):
            _native.Program().add("copy", [described(x), wrong], [], [])
