"""Blocks of 256 weights in groups whose scales (and minima) are quantized themselves.

weight = (d * scale) * q - (dmin * minimum), each product rounded to float32. Layouts: ggml-common.h of ggml.
How the scales are chosen: fitting.py.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, half_bytes, pack, unpack
from torchgguf.quants.fitting import (
    Levels,
    fit_block_lines,
    fit_block_scales,
    integers,
    searchable,
    steps,
)

# What weights and scales are coded as.
_CRUMBS = integers(0, 3, reach=steps(2, 4, 17))
_NIBBLES = integers(0, 15, reach=steps(12.5, 16.5, 17))
_FIVE_BITS = integers(0, 31, reach=steps(28, 33, 21))
_THREE_BITS = integers(-4, 3, reach=(*steps(-4.9, -2.5, 13), 2.6, 3, 3.4))
_SIX_BITS = integers(-32, 31, reach=steps(-34, -29, 11))
_SCALES_OF_FOUR_BITS = integers(0, 15, reach=steps(11, 15.5, 10))
_SCALES_OF_SIX_BITS = integers(0, 63, reach=steps(56, 63.5, 16))
SIGNED_SCALES_OF_SIX_BITS = integers(-32, 31, reach=steps(-33, -26, 8))
_SCALES_OF_EIGHT_BITS = integers(-128, 127, reach=steps(-128, -122, 4))


def scaled(q: Tensor, scales: Tensor, minima: Tensor | None = None) -> Tensor:
    """Return the weights (n, k) of codes (n, k) that come in equal groups with `scales` and `minima` (n, groups)."""
    products = scales.unsqueeze(-1) * q.view(*scales.shape, -1)
    return (products if minima is None else products - minima.unsqueeze(-1)).flatten(1)


def scales_and_minima(data: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 8 scales and 8 minima of six bits that Q4_K and Q5_K hold in 12 bytes."""
    a, b, c = fields(data, 4, 4, 4)
    scales = torch.cat([a & 0x3F, (c & 0x0F) | (a >> 6) << 4], dim=1)
    minima = torch.cat([b & 0x3F, (c >> 4) | (b >> 6) << 4], dim=1)
    return scales, minima


def packed_scales_and_minima(scales: Tensor, minima: Tensor) -> Tensor:
    """Return the 12 bytes of 8 scales and 8 minima, uint8; `scales_and_minima` undone."""
    low, high = scales.chunk(2, dim=1)
    min_low, min_high = minima.chunk(2, dim=1)
    a, b = low | (high >> 4) << 6, min_low | (min_high >> 4) << 6
    return torch.cat([a, b, (high & 0x0F) | min_high << 4], dim=1)


class Q2_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        scales, crumbs, d, dmin = fields(blocks, 16, 64, 2, 2)
        return scaled(unpack(crumbs, 2, run=32), half(d) * (scales & 0x0F), half(dmin) * (scales >> 4))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance, 16)
        d, dmin, scales, minima, q = fit_block_lines(x, w, _CRUMBS, _SCALES_OF_FOUR_BITS)
        both = scales.byte() | minima.byte() << 4
        crumbs = pack(q.flatten(1).byte(), 2, run=32)
        return torch.cat([both, crumbs, half_bytes(d), half_bytes(dmin)], dim=1)


class Q3_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        third, crumbs, low, high, d = fields(blocks, 32, 64, 8, 4, 2)
        scales = unpack(low, 4, run=8) | unpack(high, 2, run=4) << 4
        q = unpack(crumbs, 2, run=32) | unpack(third, 1, run=32) << 2
        return scaled(q.float() - 4, half(d) * (scales.float() - 32))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance, 16)
        d, scales, levels = fit_block_scales(x, w, _THREE_BITS, SIGNED_SCALES_OF_SIX_BITS)
        q, scales = _THREE_BITS.codes(levels.flatten(1)), SIGNED_SCALES_OF_SIX_BITS.codes(scales)
        third, crumbs = pack(q >> 2, 1, run=32), pack(q & 3, 2, run=32)
        low, high = pack(scales & 15, 4, run=8), pack(scales >> 4, 2, run=4)
        return torch.cat([third, crumbs, low, high, half_bytes(d)], dim=1)


class Q4_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, dmin, packed_scales, nibbles = fields(blocks, 2, 2, 12, 128)
        scales, minima = scales_and_minima(packed_scales)
        return scaled(unpack(nibbles, 4, run=32), half(d) * scales, half(dmin) * minima)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        head, q = _lines_of_32(weights, importance, _NIBBLES)
        return torch.cat([head, pack(q, 4, run=32)], dim=1)


class Q5_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, dmin, packed_scales, fifth, nibbles = fields(blocks, 2, 2, 12, 32, 128)
        scales, minima = scales_and_minima(packed_scales)
        q = unpack(nibbles, 4, run=32) | unpack(fifth, 1, run=32) << 4
        return scaled(q, half(d) * scales, half(dmin) * minima)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        head, q = _lines_of_32(weights, importance, _FIVE_BITS)
        return torch.cat([head, pack(q >> 4, 1, run=32), pack(q & 15, 4, run=32)], dim=1)


class Q6_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        nibbles, crumbs, scales, d = fields(blocks, 128, 64, 16, 2)
        q = unpack(nibbles, 4, run=64) | unpack(crumbs, 2, run=32) << 4
        return scaled(q.float() - 32, half(d) * scales.view(torch.int8))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance, 16)
        d, scales, levels = fit_block_scales(x, w, _SIX_BITS, _SCALES_OF_EIGHT_BITS)
        q = _SIX_BITS.codes(levels.flatten(1))
        nibbles, crumbs = pack(q & 15, 4, run=64), pack(q >> 4, 2, run=32)
        return torch.cat([nibbles, crumbs, scales.to(torch.int8).view(torch.uint8), half_bytes(d)], dim=1)


def _lines_of_32(weights: Tensor, importance: Tensor | None, levels: Levels) -> tuple[Tensor, Tensor]:
    """Return what Q4_K and Q5_K blocks begin with (factors, scales, minima), and the codes (n, 256)."""
    x, w = searchable(weights, importance, 8)
    d, dmin, scales, minima, q = fit_block_lines(x, w, levels, _SCALES_OF_SIX_BITS)
    packed = packed_scales_and_minima(scales.byte(), minima.byte())
    return torch.cat([half_bytes(d), half_bytes(dmin), packed], dim=1), q.flatten(1).byte()
