"""`_native.linear` itself, on every instruction set: what it reads, refuses and makes of tiny activations."""

import pytest
import torch
from torch import Tensor

from tests.guard_page import guarded, needs_guard_pages
from tests.quants.evidence import goldens
from torchgguf.quants import QuantType, dequantize, quant_type, quant_types, quantize

_native = pytest.importorskip("torchgguf._native")

pytestmark = pytest.mark.usefixtures("isa")
GOLDENS = {golden.ggml_type: golden.packed for golden in goldens()}
each_type = pytest.mark.parametrize("kind", quant_types(), ids=lambda kind: kind.name)


def packed_rows(kind: QuantType, blocks: int, rows: int = 3) -> Tensor:
    """What ggml packed, or for plain types any numbers: (rows, blocks * type_size)."""
    if kind.dtype is not None:
        generator = torch.Generator().manual_seed(blocks)
        return quantize((torch.randn(rows, blocks, generator=generator) * 20).to(kind.dtype), kind)
    some = GOLDENS[kind.id][:rows]
    return some.repeat(1, -(-blocks * kind.type_size // some.shape[1]))[
        :, : blocks * kind.type_size
    ].contiguous()


def activations(rows: int, features: int) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(rows))


def within_rounding(result: Tensor, x: Tensor, weight: Tensor) -> bool:
    scale = x.double().norm(dim=1, keepdim=True) * weight.norm(dim=1)
    return bool(((result - x.double() @ weight.T).abs() <= 3e-5 * scale).all())


def linear(x: Tensor, weight: Tensor, kind: QuantType, y: Tensor) -> None:
    _native.linear(kind.id, weight, x, None, y, 1)


@needs_guard_pages
@each_type
def test_nothing_is_touched_behind_the_last_weight_activation_and_result(kind):
    """A tensor may end where its file's mapping ends."""
    for blocks in (1, 3, 1280 // kind.block_size | 1):  # the last: longer than a segment
        packed = packed_rows(kind, blocks)
        weight = dequantize(packed, kind).double()
        for rows in (1, 3, 7):
            x = activations(rows, weight.shape[1])
            with guarded(packed) as w, guarded(x) as inputs, guarded(torch.empty(rows, len(packed))) as y:
                linear(inputs, w, kind, y)
                result = y.clone()
            assert within_rounding(result, x, weight)


@each_type
def test_any_number_of_rows_and_threads_gives_the_product(kind):
    """Rows of activations share blocks, some at a time, and a last few blocks are fewer than usual."""
    packed = packed_rows(kind, 576 // kind.block_size)
    weight = dequantize(packed, kind).double()
    for rows in range(1, 18):
        x = activations(rows, weight.shape[1])
        y = torch.empty(rows, len(packed))
        for threads in (1, 3):
            _native.linear(kind.id, packed, x, None, y, threads)
            assert within_rounding(y, x, weight), (rows, threads)


@each_type
@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 1e-36, -9e-35, -1e-33, 1e-31, -1e-28])
def test_tiny_activations_give_their_product_or_nothing(kind, tiny):
    packed = packed_rows(kind, 1 + 63 // kind.block_size)
    weight = dequantize(packed, kind)
    x = torch.zeros(1, weight.shape[1])
    x[0, 0] = tiny
    y = torch.empty(1, len(packed))
    linear(x, packed, kind, y)
    exact = weight[:, 0].double() * x[0, 0].double()
    error = (y - exact).abs()
    assert ((error <= 1e-4 * abs(tiny) * weight.abs().amax() + 1e-44) | (y == 0)).all()


def test_a_tiny_block_changes_nothing_in_the_others():
    kind = quant_type("Q8_0")
    packed = packed_rows(kind, 2)
    x, y, expected = activations(1, 64), torch.empty(1, 3), torch.empty(1, 3)
    x[0, :32] = 0
    linear(x, packed, kind, expected)
    x[0, :32] = 1e-36
    linear(x, packed, kind, y)
    torch.testing.assert_close(y, expected)
