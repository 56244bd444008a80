"""Blocks of 256 weights, found eight (or four) at a time in a grid, with signs beside.

weight = (d * scale) * (sign * grid entry). Layouts: ggml-common.h of ggml; grids: the gguf package.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, unpack, unsigned
from torchgguf.quants.grids import even_signs, grid
from torchgguf.quants.k_quants import scaled


def signed(magnitudes: Tensor, minus: Tensor) -> Tensor:
    """Magnitudes, 256 for each of n blocks, negated where the bits of the bytes `minus` (n, 32) are set."""
    return magnitudes.flatten(1) * (1 - 2 * unpack(minus, 1, run=1).float())


def shifts(data: Tensor, *by: int) -> Tensor:
    """Each number of (n, k) shifted right by each of `by`: (n, k * len(by))."""
    return (data.unsqueeze(-1) >> torch.tensor(by, device=data.device)).flatten(1)


class IQ2_XXS(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, rest = fields(blocks, 2, 64)
        pairs = rest.reshape(-1, 8, 2, 4)  # for each 32 weights: four entries; a word of signs and scale
        entries, words = pairs[:, :, 0].flatten(1), unsigned(pairs[:, :, 1].flatten(1), torch.int32)
        weights = signed(grid(self.name, entries), even_signs(shifts(words, 0, 7, 14, 21)))
        return scaled(weights, half(d) * (0.5 + (words >> 28)) * 0.25)


class IQ2_XS(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, entries, scales = fields(blocks, 2, 64, 8)
        words = unsigned(entries, torch.int16)
        weights = signed(grid(self.name, words & 0x1FF), even_signs(words >> 9))
        return scaled(weights, half(d) * (0.5 + unpack(scales, 4, run=1)) * 0.25)


class IQ2_S(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, low, signs, high, scales = fields(blocks, 2, 32, 32, 8, 8)
        weights = signed(grid(self.name, low.int() | unpack(high, 2, run=1).int() << 8), signs)
        return scaled(weights, half(d) * (0.5 + unpack(scales, 4, run=1)) * 0.25)


class IQ3_XXS(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, entries, tail = fields(blocks, 2, 64, 32)
        words = unsigned(tail, torch.int32)
        weights = signed(grid(self.name, entries), even_signs(shifts(words, 0, 7, 14, 21)))
        return scaled(weights, half(d) * (0.5 + (words >> 28)) * 0.5)


class IQ3_S(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, low, high, signs, scales = fields(blocks, 2, 64, 8, 32, 4)
        weights = signed(grid(self.name, low.int() | unpack(high, 1, run=1).int() << 8), signs)
        return scaled(weights, half(d) * (1 + 2 * unpack(scales, 4, run=1)))


def shifted(entries: Tensor, down: Tensor) -> Tensor:
    """IQ1's grid entries (n, 32, 8) of -1, 0, 1 moved up by an eighth, or down where `down` is not zero.

    `down` is (n, 32), one for each entry, or (n, 8), one for four of them.
    """
    delta = torch.where(down == 0, 0.125, -0.125)
    return (entries.view(*delta.shape, -1) + delta.unsqueeze(-1)).flatten(1)


class IQ1_S(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, low, high = fields(blocks, 2, 32, 16)
        words = unsigned(high, torch.int16)
        entries = grid(self.name, low.int() | (shifts(words, 0, 3, 6, 9) & 7) << 8)
        return scaled(shifted(entries, words & 0x8000), half(d) * (2 * (words >> 12 & 7) + 1))


class IQ1_M(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        low, nibbles, scales = fields(blocks, 32, 16, 8)
        high = unpack(nibbles, 4, run=1)  # three bits of the entry, and one that says shifted down
        words = unsigned(scales, torch.int16)
        # The FP16 that scales the whole block lies in quarters in the highest bits of the four words.
        quarters = (words >> 12) << torch.arange(0, 16, 4, device=blocks.device)
        d = quarters.sum(dim=1, keepdim=True).to(torch.int16).view(torch.float16).float()
        entries = grid(self.name, low.int() | (high & 7).int() << 8)
        return scaled(shifted(entries, high & 8), d * (2 * (shifts(words, 0, 3, 6, 9) & 7) + 1))
