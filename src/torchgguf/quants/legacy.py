"""Blocks of 32 weights with one scale, and perhaps one offset. Layouts: ggml-common.h of ggml."""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, unpack


class Q4_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, nibbles = fields(blocks, 2, 16)
        return half(d) * (unpack(nibbles, 4, run=16).float() - 8)


class Q4_1(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, m, nibbles = fields(blocks, 2, 2, 16)
        return half(d) * unpack(nibbles, 4, run=16) + half(m)


class Q5_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, fifth, nibbles = fields(blocks, 2, 4, 16)
        q = unpack(nibbles, 4, run=16) | unpack(fifth, 1, run=1) << 4
        return half(d) * (q.float() - 16)


class Q5_1(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, m, fifth, nibbles = fields(blocks, 2, 2, 4, 16)
        q = unpack(nibbles, 4, run=16) | unpack(fifth, 1, run=1) << 4
        return half(d) * q + half(m)


class Q8_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, q = fields(blocks, 2, 32)
        return half(d) * q.view(torch.int8)
