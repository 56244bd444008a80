"""Blocks of 256 weights in groups whose scales (and minima) are quantized themselves.

weight = (d * scale) * q - (dmin * minimum), each product rounded to float32. Layouts: ggml-common.h of ggml.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, unpack


def scaled(q: Tensor, scales: Tensor, minima: Tensor | None = None) -> Tensor:
    """The weights (n, k) of codes (n, k) that come in equal groups with `scales` and `minima` (n, groups)."""
    products = scales.unsqueeze(-1) * q.view(*scales.shape, -1)
    return (products if minima is None else products - minima.unsqueeze(-1)).flatten(1)


def scales_and_minima(data: Tensor) -> tuple[Tensor, Tensor]:
    """The 8 scales and 8 minima of six bits that Q4_K and Q5_K hold in 12 bytes."""
    a, b, c = fields(data, 4, 4, 4)
    scales = torch.cat([a & 0x3F, (c & 0x0F) | (a >> 6) << 4], dim=1)
    minima = torch.cat([b & 0x3F, (c >> 4) | (b >> 6) << 4], dim=1)
    return scales, minima


class Q2_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        scales, crumbs, d, dmin = fields(blocks, 16, 64, 2, 2)
        return scaled(unpack(crumbs, 2, run=32), half(d) * (scales & 0x0F), half(dmin) * (scales >> 4))


class Q3_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        third, crumbs, low, high, d = fields(blocks, 32, 64, 8, 4, 2)
        scales = unpack(low, 4, run=8) | unpack(high, 2, run=4) << 4
        q = unpack(crumbs, 2, run=32) | unpack(third, 1, run=32) << 2
        return scaled(q.float() - 4, half(d) * (scales.float() - 32))


class Q4_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, dmin, packed_scales, nibbles = fields(blocks, 2, 2, 12, 128)
        scales, minima = scales_and_minima(packed_scales)
        return scaled(unpack(nibbles, 4, run=32), half(d) * scales, half(dmin) * minima)


class Q5_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, dmin, packed_scales, fifth, nibbles = fields(blocks, 2, 2, 12, 32, 128)
        scales, minima = scales_and_minima(packed_scales)
        q = unpack(nibbles, 4, run=32) | unpack(fifth, 1, run=32) << 4
        return scaled(q, half(d) * scales, half(dmin) * minima)


class Q6_K(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        nibbles, crumbs, scales, d = fields(blocks, 128, 64, 16, 2)
        q = unpack(nibbles, 4, run=64) | unpack(crumbs, 2, run=32) << 4
        return scaled(q.float() - 32, half(d) * scales.view(torch.int8))
