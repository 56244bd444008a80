"""The native encoders against the reference in torch, byte for byte, on every instruction set."""

from functools import cache

import pytest
import torch
from torch import Tensor

from tests.guard_page import guarded, needs_guard_pages
from tests.quants.evidence import hard_weights
from torchgguf.quants import QuantType, quant_types

_native = pytest.importorskip("torchgguf._native")

pytestmark = pytest.mark.usefixtures("isa")
KINDS = [kind for kind in quant_types() if kind.dtype is None]


def with_grid(kind: QuantType) -> bool:
    """Those whose reference takes seconds for a thousand weights."""
    return kind.name.startswith("IQ") and not kind.name.startswith("IQ4")


def encode(weights: Tensor, kind: QuantType, importance: Tensor | None = None, threads: int = 1) -> Tensor:
    rows, n = weights.shape
    packed = torch.full((rows + 1, kind.bytes_per_row(n)), 7, dtype=torch.uint8)
    _native.quantize(kind.id, weights, importance, packed[:rows], threads)
    assert (packed[rows] == 7).all()  # nobody wrote behind the last row
    return packed[:rows]


def reference(weights: Tensor, kind: QuantType, importance: Tensor | None = None) -> Tensor:
    blocks = None if importance is None else importance.expand(weights.shape).reshape(-1, kind.block_size)
    return kind.encode(weights.reshape(-1, kind.block_size), blocks).view(len(weights), -1)


@cache
def hard_case(kind: QuantType) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and importances; how they are packed without, and with these."""
    weights, importance = hard_weights()
    if with_grid(kind):
        weights, importance = weights[:12, 512:].contiguous(), importance[512:].contiguous()
    importance = importance.clamp(min=1e-6)
    return weights, importance, reference(weights, kind), reference(weights, kind, importance)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_packs_as_the_reference_does(kind):
    weights, importance, plain, weighted = hard_case(kind)
    assert torch.equal(encode(weights, kind), plain)
    assert torch.equal(encode(weights, kind, importance), weighted)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_number_of_threads_changes_nothing(kind):
    rows = 35 if with_grid(kind) else 301
    weights = torch.randn(rows, 512, generator=torch.Generator().manual_seed(0))
    once = encode(weights, kind)
    for threads in (2, 3, 16):
        assert torch.equal(encode(weights, kind, threads=threads), once)


@needs_guard_pages
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_nothing_is_touched_behind_the_last_number(kind):
    weights = torch.randn(1, (1 if with_grid(kind) else 3) * kind.block_size)
    importance = torch.rand(weights.shape[1]) + 0.1
    expected = reference(weights, kind, importance)
    with guarded(weights) as src, guarded(importance) as columns, guarded(expected * 0) as dst:
        _native.quantize(kind.id, src, columns, dst, 1)
        assert torch.equal(dst, expected)
