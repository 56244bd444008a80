"""Blocks of 32 weights with one scale, and perhaps one offset. Layouts: ggml-common.h of ggml.

Packing without weights of importance is ggml's own, to the last bit: the scale maps the extreme weights onto
the extreme codes, and each weight goes to the nearest code (`quantize_row_*_ref` in ggml-quants.c). With them
scales are searched for (fitting.py), except for Q8_0, which like ggml's knows no importance.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

from functools import reduce

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, half_bytes, pack, unpack
from torchgguf.quants.fitting import (
    Levels,
    fit_scale,
    fit_stored_line,
    integers,
    inverse,
    searchable,
    steps,
    stored_half,
)

_FOUR_SIGNED = integers(-8, 7, reach=steps(-9, -6, 13))
_FIVE_SIGNED = integers(-16, 15, reach=steps(-17, -13, 17))
_FOUR = integers(0, 15, reach=steps(12.5, 16.5, 17))
_FIVE = integers(0, 31, reach=steps(28, 33, 21))


class Q4_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, nibbles = fields(blocks, 2, 16)
        return half(d) * (unpack(nibbles, 4, run=16).float() - 8)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, q = _symmetric(weights, importance, _FOUR_SIGNED)
        return torch.cat((d, pack(q, 4, run=16)), dim=1)


class Q4_1(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, m, nibbles = fields(blocks, 2, 2, 16)
        return half(d) * unpack(nibbles, 4, run=16) + half(m)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, m, q = _with_offset(weights, importance, _FOUR)
        return torch.cat((d, m, pack(q, 4, run=16)), dim=1)


class Q5_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, fifth, nibbles = fields(blocks, 2, 4, 16)
        q = unpack(nibbles, 4, run=16) | unpack(fifth, 1, run=1) << 4
        return half(d) * (q.float() - 16)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, q = _symmetric(weights, importance, _FIVE_SIGNED)
        return torch.cat((d, pack(q >> 4, 1, run=1), pack(q & 15, 4, run=16)), dim=1)


class Q5_1(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, m, fifth, nibbles = fields(blocks, 2, 2, 4, 16)
        q = unpack(nibbles, 4, run=16) | unpack(fifth, 1, run=1) << 4
        return half(d) * q + half(m)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, m, q = _with_offset(weights, importance, _FIVE)
        return torch.cat((d, m, pack(q >> 4, 1, run=1), pack(q & 15, 4, run=16)), dim=1)


class Q8_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, q = fields(blocks, 2, 32)
        return half(d) * q.view(torch.int8)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d = weights.abs().amax(dim=1, keepdim=True) / 127
        scaled = weights * _finite_inverse(d)
        q = scaled.trunc() + (scaled - scaled.trunc()).mul(2).trunc()  # halves go away from zero
        return torch.cat((half_bytes(d), q.to(torch.int8).view(torch.uint8)), dim=1)


def _finite_inverse(d: Tensor) -> Tensor:
    """1 / d, or 0 where that is infinite: where nothing is searched for, as near to zero as ggml's own."""
    return torch.where(d.abs() > 2.0**-128, 1 / d, 0.0)


def _symmetric(weights: Tensor, importance: Tensor | None, levels: Levels) -> tuple[Tensor, Tensor]:
    """Return the bytes of the scales, and the codes."""
    if importance is not None:
        x, w = searchable(weights, importance)
        d = stored_half(fit_scale(x, w, levels)[0].unsqueeze(-1))
        return half_bytes(d), levels.codes(levels.nearest(x * inverse(d)))
    zero = -levels.values[0]  # the code of zero; the first weight furthest from zero is code 0
    extreme = weights.gather(1, weights.abs().argmax(dim=1, keepdim=True))
    d = extreme / -zero
    codes = (weights * _finite_inverse(d) + (zero + 0.5)).clamp(max=2 * zero - 1)
    return half_bytes(d), codes.to(torch.uint8)


def _with_offset(weights: Tensor, importance: Tensor | None, levels: Levels) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bytes of the scales, those of the offsets, and the codes."""
    if importance is not None:
        x, w = searchable(weights, importance)
        d, offset = fit_stored_line(x, w, levels)
        return half_bytes(d), half_bytes(offset), levels.codes(levels.nearest((x - offset) * inverse(d)))
    # The least weight is code 0. Found one by one: of zeros with different signs it is the first.
    least = reduce(lambda a, b: torch.where(b < a, b, a), weights.split(1, dim=1))
    d = (weights.amax(dim=1, keepdim=True) - least).abs() / levels.values[-1]
    codes = (weights - least) * _finite_inverse(d) + 0.5
    return half_bytes(d), half_bytes(least), codes.to(torch.uint8)
