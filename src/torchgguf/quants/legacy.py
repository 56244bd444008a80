"""Blocks of 32 weights with one scale, and perhaps one offset. Layouts: ggml-common.h of ggml.

Packing without weights of importance is ggml's own, to the last bit: the scale maps the extreme weights onto
the extreme codes, and each weight goes to the nearest code (`quantize_row_*_ref` in ggml-quants.c).
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, half_bytes, pack, unpack


class Q4_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, nibbles = fields(blocks, 2, 16)
        return half(d) * (unpack(nibbles, 4, run=16).float() - 8)

    def encode(self, weights: Tensor) -> Tensor:
        d, q = _symmetric(weights, bits=4)
        return torch.cat((d, pack(q, 4, run=16)), dim=1)


class Q4_1(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, m, nibbles = fields(blocks, 2, 2, 16)
        return half(d) * unpack(nibbles, 4, run=16) + half(m)

    def encode(self, weights: Tensor) -> Tensor:
        d, m, q = _with_offset(weights, bits=4)
        return torch.cat((d, m, pack(q, 4, run=16)), dim=1)


class Q5_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, fifth, nibbles = fields(blocks, 2, 4, 16)
        q = unpack(nibbles, 4, run=16) | unpack(fifth, 1, run=1) << 4
        return half(d) * (q.float() - 16)

    def encode(self, weights: Tensor) -> Tensor:
        d, q = _symmetric(weights, bits=5)
        return torch.cat((d, pack(q >> 4, 1, run=1), pack(q & 15, 4, run=16)), dim=1)


class Q5_1(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, m, fifth, nibbles = fields(blocks, 2, 2, 4, 16)
        q = unpack(nibbles, 4, run=16) | unpack(fifth, 1, run=1) << 4
        return half(d) * q + half(m)

    def encode(self, weights: Tensor) -> Tensor:
        d, m, q = _with_offset(weights, bits=5)
        return torch.cat((d, m, pack(q >> 4, 1, run=1), pack(q & 15, 4, run=16)), dim=1)


class Q8_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, q = fields(blocks, 2, 32)
        return half(d) * q.view(torch.int8)

    def encode(self, weights: Tensor) -> Tensor:
        d = weights.abs().amax(dim=1, keepdim=True) / 127
        scaled = weights * _inverse(d)
        q = scaled.trunc() + (scaled - scaled.trunc()).mul(2).trunc()  # halves go away from zero
        return torch.cat((half_bytes(d), q.to(torch.int8).view(torch.uint8)), dim=1)


def _symmetric(weights: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the bytes of the scales, and the codes; the first weight furthest from zero is code 0."""
    zero = 1 << (bits - 1)
    extreme = weights.gather(1, weights.abs().argmax(dim=1, keepdim=True))
    d = extreme / -zero
    codes = (weights * _inverse(d) + (zero + 0.5)).clamp(max=2 * zero - 1)
    return half_bytes(d), codes.to(torch.uint8)


def _with_offset(weights: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bytes of the scales, those of the offsets, and the codes; the least weight is code 0."""
    least, most = weights.aminmax(dim=1, keepdim=True)
    d = (most - least) / ((1 << bits) - 1)
    codes = (weights - least) * _inverse(d) + 0.5
    return half_bytes(d), half_bytes(least), codes.to(torch.uint8)


def _inverse(d: Tensor) -> Tensor:
    return torch.where(d == 0, 0.0, 1 / d)
