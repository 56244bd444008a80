"""Linear layers, products of matrices and attention, beside torch."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.kernels.plan.programs import _native, described, numbers, run
from torchgguf.quants import dequantize, quant_types, quantize

pytestmark = pytest.mark.usefixtures("isa")

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
PACKED = [
    kind for kind in quant_types() if kind.name in ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "IQ4_NL", "TQ2_0")
]


def assert_near(out, expected, x, weight):
    """Activations are rounded to sixteen bits, results to their dtype."""
    scale = x.float().norm(dim=-1, keepdim=True) * weight.float().norm(dim=1)
    rounding = {torch.float32: 0.0, torch.bfloat16: 8e-3, torch.float16: 1e-3}[out.dtype]
    assert ((out.float() - expected).abs() <= 3e-5 * scale + rounding * expected.abs()).all()


@pytest.mark.parametrize("team", [1, 2, 3])
@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_packed_weights(kind, team):
    for rows, bias_dtype, dtype in (
        (1, None, torch.float32),
        (3, torch.float32, torch.float32),
        (2, torch.bfloat16, torch.bfloat16),
    ):
        packed = quantize(numbers(1031, 512), kind)
        weight, x = dequantize(packed, kind), numbers(1, rows, 512, dtype=dtype, seed=1)
        bias = None if bias_dtype is None else numbers(1031, dtype=bias_dtype, seed=2)
        out = torch.empty(1, rows, 1031, dtype=dtype)
        run("linear", [out, x, packed, bias], ints=[1, kind.id], threads=team)
        expected = F.linear(x.float(), weight, None if bias is None else bias.float())
        assert_near(out, expected, x, weight)


def test_several_products_of_the_same_activations():
    kinds = [*PACKED, None]
    x = numbers(2, 512)
    weights = [numbers(40 + i, 512, seed=i) for i in range(len(kinds))]
    stored = [w if k is None else quantize(w, k) for w, k in zip(weights, kinds, strict=True)]
    weights = [w if k is None else dequantize(p, k) for w, p, k in zip(weights, stored, kinds, strict=True)]
    biases = [numbers(len(w), seed=5) if i % 2 else None for i, w in enumerate(weights)]
    outs = [torch.empty(2, len(w)) for w in weights]
    ids = [-1 if k is None else k.id for k in kinds]
    run("linear", [*outs, x, *stored, *biases], ints=[len(outs), *ids], threads=2)
    for out, weight, bias in zip(outs, weights, biases, strict=True):
        assert_near(out, F.linear(x, weight, bias), x, weight)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_plain_weights(dtype):
    for rows, columns in ((1, 7), (5, 100), (2, 1500)):
        x, weight = numbers(rows, 2 * columns, dtype=dtype)[:, ::2], numbers(33, columns, dtype=dtype, seed=1)
        out = torch.empty(33, rows, dtype=dtype).t()
        run("linear", [out, x, weight], ints=[1, -1], threads=2)
        assert_near(out, F.linear(x.float(), weight.float()), x, weight)


def test_one_of_several_weights():
    kind = PACKED[0]
    packed = quantize(numbers(4 * 48, 256), kind)
    weights, packed = dequantize(packed, kind).view(4, 48, 256), packed.view(4, 48, -1)
    x, out, biases, index = numbers(1, 256), torch.empty(1, 48), numbers(4, 48, seed=3), torch.tensor([0])
    program = _native.Program()
    tensors = [described(tensor) for tensor in (out, x, packed, index, biases)]
    program.add("linear_indexed", tensors, [kind.id], [])
    for chosen in (2, 0, 3):
        index.fill_(chosen)
        program.run(2)
        assert_near(out, F.linear(x, weights[chosen], biases[chosen]), x, weights[chosen])
    for wrong in (-1, 4):
        index.fill_(wrong)
        with pytest.raises(RuntimeError, match="outside of the weights"):
            program.run(1)


def test_several_of_several_weights():
    kinds = PACKED[0], PACKED[3]
    packed = [quantize(numbers(3 * 40, 256, seed=i), kind) for i, kind in enumerate(kinds)]
    weights = [dequantize(p, kind).view(3, 40, 256) for p, kind in zip(packed, kinds, strict=True)]
    x, indices = numbers(2, 256), [torch.tensor([i]) for i in (2, 0, 1, 2)]
    outs = [torch.empty(2, 40) for _ in range(4)]
    stored = [packed[i % 2].view(3, 40, -1) for i in range(4)]
    types = [kinds[i % 2].id for i in range(4)]
    run("linear_indexed", [*outs, x, *stored, *indices], ints=[4, *types], threads=2)
    for i, (out, index) in enumerate(zip(outs, indices, strict=True)):
        weight = weights[i % 2][int(index)]
        assert_near(out, F.linear(x, weight), x, weight)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_small_products(transposed, dtype):
    a = numbers(2, 1, 3, 45, dtype=dtype)
    b = (
        numbers(4, 21, 45, dtype=dtype, seed=1).transpose(1, 2)
        if transposed
        else numbers(4, 45, 21, dtype=dtype, seed=1)
    )
    out = torch.empty(2, 4, 3, 21, dtype=dtype)
    run("matmul", [out, a, b], threads=2)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(out.float(), a.float() @ b.float(), rtol=tolerance, atol=tolerance * 8)


def attention(q, k, v, mask, scale, softcap=0.0, sinks=None):
    """Compute attention in FP64."""
    groups = q.shape[1] // k.shape[1]
    k, v = (part.double().repeat_interleave(groups, 1) for part in (k, v))
    scores = q.double() @ k.transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:
        scores = torch.cat((scores, sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)), 3)
    weights = scores.softmax(3).nan_to_num(0.0)
    return weights[..., : k.shape[2]] @ v


@pytest.mark.parametrize("team", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("batch", "heads", "key_heads", "queries", "keys", "size", "value_size"),
    [
        (1, 9, 3, 1, 200, 64, 64),
        (2, 4, 4, 3, 37, 40, 24),
        (1, 2, 1, 1, 3000, 128, 128),
        (1, 3, 3, 1, 1, 7, 5),
    ],
)
def test_attention(batch, heads, key_heads, queries, keys, size, value_size, dtype, team):
    q = numbers(batch, queries, heads, size).transpose(1, 2) / 3
    k = numbers(batch, key_heads, keys, size, dtype=dtype, seed=1)
    v = numbers(batch, key_heads, keys, value_size, dtype=dtype, seed=2)
    allowed = torch.zeros(batch, 1, queries, keys, dtype=torch.bool)
    for b in range(batch):
        for t in range(queries):
            allowed[b, 0, t, 2 * b : max(2 * b + 1, keys - 5 + t)] = True
    allowed[0, 0, :, keys // 2] = keys == 1  # a hole
    added = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    for mask in (None, allowed, added.expand(batch, heads, queries, keys), allowed[:1, :, :1]):
        out = torch.empty(batch, queries, heads, value_size).transpose(1, 2)
        run("attention", [out, q, k, v, mask], floats=[size**-0.5, 0.0], threads=team)
        torch.testing.assert_close(out.double(), attention(q, k, v, mask, size**-0.5), rtol=1e-5, atol=2e-5)


def test_attention_with_a_soft_cap_and_sinks():
    q, k, v, sinks = (
        numbers(1, 4, 1, 32),
        numbers(1, 2, 50, 32, seed=1),
        numbers(1, 2, 50, 32, seed=2),
        numbers(4, seed=3),
    )
    out = torch.empty_like(q)
    run("attention", [out, q, k, v, None, sinks], floats=[0.2, 5.0], threads=2)
    torch.testing.assert_close(out.double(), attention(q, k, v, None, 0.2, 5.0, sinks), rtol=1e-5, atol=1e-5)


def test_queries_that_may_see_nothing():
    q, k, v = numbers(2, 2, 1, 16), numbers(2, 2, 20, 16, seed=1), numbers(2, 2, 20, 16, seed=2)
    mask = torch.zeros(2, 1, 1, 20, dtype=torch.bool)
    mask[1, ..., 3:9] = True
    out = torch.empty_like(q)
    run("attention", [out, q, k, v, mask], floats=[0.25])
    torch.testing.assert_close(out.double(), attention(q, k, v, mask, 0.25), rtol=1e-5, atol=1e-5)
    forbidden = torch.full((2, 1, 1, 20), torch.finfo(torch.float32).min)
    run("attention", [out, q, k, v, forbidden], floats=[0.25])
    torch.testing.assert_close(out, v.mean(2, keepdim=True), rtol=1e-5, atol=1e-5)


def test_keys_that_are_not_allowed_are_not_read():
    q, k, v = numbers(1, 2, 1, 16), numbers(1, 2, 40, 16, seed=1), numbers(1, 2, 40, 16, seed=2)
    mask = torch.zeros(1, 1, 1, 40, dtype=torch.bool)
    mask[..., 4:30] = True
    expected = attention(q, k, v, mask, 0.25)
    for tensor in (k, v):
        tensor[:, :, :4] = math.nan
        tensor[:, :, 30:] = math.nan
    out = torch.empty_like(q)
    run("attention", [out, q, k, v, mask], floats=[0.25], threads=2)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "shapes", "ints", "message"),
    [
        ("linear", [(1, 4), (1, 8), (4, 9)], [1, -1], "linear: x does not match the weight"),
        ("linear", [(1, 5), (1, 8), (4, 8)], [1, -1], "linear: the result does not match the weight and x"),
        ("linear", [(1, 4), (1, 8), (4, 8)], [1, 2], "linear: a packed weight must be uint8"),
        ("linear", [(1, 4), (1, 8), (4, 8)], [2, -1, -1], "linear: there are not as many tensors"),
        ("linear", [(1, 4), (1, 8), (4, 8), (3,)], [1, -1], "linear: a bias does not match"),
        (
            "linear_indexed",
            [(1, 4), (1, 8), (2, 4, 8), (1,)],
            [-1],
            "linear_indexed: the index must be one int64",
        ),
        ("matmul", [(2, 3), (2, 4), (5, 3)], [], "matmul: the shapes do not match"),
    ],
)
def test_what_is_refused(op, shapes, ints, message):
    held = [torch.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=f"^{message}$"):
        _native.Program().add(op, [described(tensor) for tensor in held], ints, [])
