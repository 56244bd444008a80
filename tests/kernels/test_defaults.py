"""torch's default dtype and default device change no result of an operator, and no buffer."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import Tensor

from torchgguf import kernels
from torchgguf.kernels.ops import REFERENCE
from torchgguf.quants import quant_type, quant_types, quantize, reference

FEW, MANY, COLUMNS = 3, 40, 512
KINDS = quant_types()
each_type = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


each_default = pytest.mark.parametrize(
    ("dtype", "device"),
    [
        (torch.float16, "cpu"),
        (torch.bfloat16, "cpu"),
        (torch.float64, "cpu"),
        (torch.float32, "meta"),
        (torch.float64, "meta"),
    ],
)


@cache
def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": torch.randn(8, COLUMNS, generator=generator),
        "importance": torch.rand(COLUMNS, generator=generator) + 0.1,
        "few": torch.randn(FEW, COLUMNS, generator=generator),
        "many": torch.randn(MANY, COLUMNS, generator=generator),
        "gradient": torch.randn(MANY, 8, generator=generator),
        "bias": torch.randn(8, generator=generator),
        "indices": torch.tensor([[7, 0], [3, 3]]),
    }


@cache
def packed(kind) -> Tensor:
    i = inputs()
    return quantize(i["weights"].to(kind.dtype or torch.float32), kind, i["importance"])


def results(operators, kind) -> list[Tensor]:
    """Return what each operator computes, in each of its ways."""
    i, w, id = inputs(), packed(kind), kind.id
    found = [
        operators["dequantize"](w, id, dtype)
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    ]
    found += [operators["embedding"](i["indices"], w, id, dtype) for dtype in (torch.float32, torch.float64)]
    for x in (i["few"], i["many"]):
        found += [operators["linear"](x, w, id, i["bias"]), operators["linear"](x.bfloat16(), w, id, None)]
        found.append(operators["linear"](x.double(), w, id, None))
    found += [
        operators["linear_backward"](i["gradient"].to(d), w, id) for d in (torch.float32, torch.float64)
    ]
    return found


def operators() -> dict:
    return {name: getattr(torch.ops.torchgguf, name).default for name in REFERENCE}


def assert_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert [(t.dtype, t.device) for t in actual] == [(t.dtype, t.device) for t in expected]
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@each_default
@each_type
@pytest.mark.parametrize("implementation", [operators, lambda: REFERENCE], ids=["operators", "reference"])
def test_operators_compute_the_same(kind, dtype, device, implementation):
    expected = results(implementation(), kind)
    with defaults(dtype, device):
        actual = results(implementation(), kind)
    assert_equal(actual, expected)


@each_default
@each_type
def test_packing_writes_the_same(kind, dtype, device):
    i = inputs()
    arguments = i["weights"].to(kind.dtype or torch.float32), kind, i["importance"]
    expected = packed(kind)
    with defaults(dtype, device):
        assert_equal([quantize(*arguments), kernels.quantize(*arguments)], [expected, expected])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.dtype is None], ids=lambda kind: kind.name)
def test_packing_in_torch_writes_the_same(kind):
    """With a dtype and a device that both would show; each takes seconds for types with grids."""
    weights, importance = inputs()["weights"][:1, -256:], inputs()["importance"][-256:]
    expected = quantize(weights, kind, importance)
    with defaults(torch.float64, "meta"):
        assert_equal([reference.quantize(weights, kind, importance)], [expected])


@each_default
def test_gradients_are_the_same(dtype, device):
    def gradients() -> list[Tensor]:
        found = []
        for name in ("few", "many"):
            x = inputs()[name].clone().requires_grad_()
            bias = inputs()["bias"].clone().requires_grad_()
            y = kernels.linear(x, packed(quant_type("Q4_K")), "Q4_K", bias)
            y.backward(y.detach())
            found += [y.detach(), x.grad, bias.grad]
        return found

    expected = gradients()
    with defaults(dtype, device):
        assert_equal(gradients(), expected)
