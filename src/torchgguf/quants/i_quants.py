"""Blocks of 256 weights, found eight (or four) at a time in a grid, with signs beside.

weight = (d * scale) * (sign * grid entry). Layouts: ggml-common.h of ggml; grids: the gguf package.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, half_bytes, pack, unpack, unsigned, unsigned_bytes
from torchgguf.quants.fitting import Levels, fit_block_scales, inverse, searchable, steps
from torchgguf.quants.grid_fitting import Grid, ShiftedGrid, even_signs_of
from torchgguf.quants.grids import even_signs, grid
from torchgguf.quants.k_quants import scaled

# The numbers in the grids.
_IQ2_LEVELS = Levels((8.0, 25.0, 43.0), steps(30, 54, 9), positive_scales=True)
_IQ3_XXS_LEVELS = Levels(
    (4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0), steps(44, 76, 9), positive_scales=True
)
_IQ3_S_LEVELS = Levels(tuple(map(float, range(1, 16, 2))), steps(10, 18, 9), positive_scales=True)
_IQ1_LEVELS = Levels((-1.0, 0.0, 1.0), steps(0.75, 3.15, 9), positive_scales=True)


def odd_scales(bits: int, unit: float) -> Levels:
    """One, three, five ... times `unit`: the scales that codes of so many bits stand for."""
    values = tuple((2 * code + 1) * unit for code in range(1 << bits))
    return Levels(values, reach=steps(values[-1] * 0.8, values[-1] * 1.05, 11))


_IQ2_SCALES, _IQ3_XXS_SCALES = odd_scales(4, 0.125), odd_scales(4, 0.25)
_IQ3_S_SCALES, _IQ1_SCALES = odd_scales(4, 1.0), odd_scales(3, 1.0)


def fit_magnitudes(
    weights: Tensor, importance: Tensor | None, groups: int, levels: Grid, scale_levels: Levels, even: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the bytes of the factors, the codes of scales (n, groups), grid entries (n, all), signs (n, 32).

    The signs are bits; with `even` there is an even number of minuses among each eight.
    """
    x, w = searchable(weights, importance, groups)
    minus = even_signs_of(x, w) if even else x < 0
    y = torch.where(minus, -x, x)
    d, scales, _ = fit_block_scales(y, w, levels, scale_levels)
    entries = levels.entries(y * inverse(d * scales).unsqueeze(-1), w).flatten(1)
    return half_bytes(d), scale_levels.codes(scales), entries, pack(minus.flatten(1).byte(), 1, run=1)


def words_of_seven(signs: Tensor, scales: Tensor) -> Tensor:
    """Return the bytes of words of a 4-bit scale and four times seven signs (the eighth is known)."""
    sevens = joined(signs.view(len(signs), -1, 4).long() & 0x7F, 0, 7, 14, 21)
    return unsigned_bytes(sevens | scales.long() << 28, torch.int32)


def signed(magnitudes: Tensor, minus: Tensor) -> Tensor:
    """Magnitudes, 256 for each of n blocks, negated where the bits of the bytes `minus` (n, 32) are set."""
    return magnitudes.flatten(1) * (1 - 2 * unpack(minus, 1, run=1).float())


def shifts(data: Tensor, *by: int) -> Tensor:
    """Each number of (n, k) shifted right by each of `by`: (n, k * len(by))."""
    return (data.unsqueeze(-1) >> torch.tensor(by, device=data.device)).flatten(1)


class IQ2_XXS(QuantType):
    needs_importance = True

    def decode(self, blocks: Tensor) -> Tensor:
        d, rest = fields(blocks, 2, 64)
        pairs = rest.reshape(-1, 8, 2, 4)  # for each 32 weights: four entries; a word of signs and scale
        entries, words = pairs[:, :, 0].flatten(1), unsigned(pairs[:, :, 1].flatten(1), torch.int32)
        weights = signed(grid(self.name, entries), even_signs(shifts(words, 0, 7, 14, 21)))
        return scaled(weights, half(d) * (0.5 + (words >> 28)) * 0.25)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = Grid(self.name, 8, _IQ2_LEVELS)
        d, scales, entries, signs = fit_magnitudes(weights, importance, 8, levels, _IQ2_SCALES, even=True)
        words = words_of_seven(signs, scales).view(-1, 8, 4)
        pairs = torch.cat([entries.to(torch.uint8).view(-1, 8, 4), words], dim=2)
        return torch.cat([d, pairs.flatten(1)], dim=1)


class IQ2_XS(QuantType):
    needs_importance = True

    def decode(self, blocks: Tensor) -> Tensor:
        d, entries, scales = fields(blocks, 2, 64, 8)
        words = unsigned(entries, torch.int16)
        weights = signed(grid(self.name, words & 0x1FF), even_signs(words >> 9))
        return scaled(weights, half(d) * (0.5 + unpack(scales, 4, run=1)) * 0.25)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = Grid(self.name, 8, _IQ2_LEVELS)
        d, scales, entries, signs = fit_magnitudes(weights, importance, 16, levels, _IQ2_SCALES, even=True)
        words = unsigned_bytes(entries | (signs.long() & 0x7F) << 9, torch.int16)
        return torch.cat([d, words, pack(scales, 4, run=1)], dim=1)


class IQ2_S(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, low, signs, high, scales = fields(blocks, 2, 32, 32, 8, 8)
        weights = signed(grid(self.name, low.int() | unpack(high, 2, run=1).int() << 8), signs)
        return scaled(weights, half(d) * (0.5 + unpack(scales, 4, run=1)) * 0.25)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = Grid(self.name, 8, _IQ2_LEVELS)
        d, scales, entries, signs = fit_magnitudes(weights, importance, 16, levels, _IQ2_SCALES, even=False)
        low, high = (entries & 0xFF).to(torch.uint8), pack((entries >> 8).to(torch.uint8), 2, run=1)
        return torch.cat([d, low, signs, high, pack(scales, 4, run=1)], dim=1)


class IQ3_XXS(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, entries, tail = fields(blocks, 2, 64, 32)
        words = unsigned(tail, torch.int32)
        weights = signed(grid(self.name, entries), even_signs(shifts(words, 0, 7, 14, 21)))
        return scaled(weights, half(d) * (0.5 + (words >> 28)) * 0.5)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = Grid(self.name, 4, _IQ3_XXS_LEVELS)
        d, scales, entries, signs = fit_magnitudes(weights, importance, 8, levels, _IQ3_XXS_SCALES, even=True)
        return torch.cat([d, entries.to(torch.uint8), words_of_seven(signs, scales)], dim=1)


class IQ3_S(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, low, high, signs, scales = fields(blocks, 2, 64, 8, 32, 4)
        weights = signed(grid(self.name, low.int() | unpack(high, 1, run=1).int() << 8), signs)
        return scaled(weights, half(d) * (1 + 2 * unpack(scales, 4, run=1)))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = Grid(self.name, 4, _IQ3_S_LEVELS)
        d, scales, entries, signs = fit_magnitudes(weights, importance, 8, levels, _IQ3_S_SCALES, even=False)
        low, high = (entries & 0xFF).to(torch.uint8), pack((entries >> 8).to(torch.uint8), 1, run=1)
        return torch.cat([d, low, high, signs, pack(scales, 4, run=1)], dim=1)


def shifted(entries: Tensor, down: Tensor) -> Tensor:
    """IQ1's grid entries (n, 32, 8) of -1, 0, 1 moved up by an eighth, or down where `down` is not zero.

    `down` is (n, 32), one for each entry, or (n, 8), one for four of them.
    """
    delta = torch.where(down == 0, 0.125, -0.125).to(torch.float32)
    return (entries.view(*delta.shape, -1) + delta.unsqueeze(-1)).flatten(1)


def fit_shifted(
    weights: Tensor, importance: Tensor | None, groups: int, levels: ShiftedGrid
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return factors (n, 1), codes of scales (n, groups), grid entries (n, 32), and which move down."""
    x, w = searchable(weights, importance, groups)
    d, scales, _ = fit_block_scales(x, w, levels, _IQ1_SCALES)
    entries, down = levels.entries(x * inverse(d * scales).unsqueeze(-1), w)
    return d, _IQ1_SCALES.codes(scales).long(), entries.flatten(1), down.flatten(1).long()


def joined(parts: Tensor, *at: int) -> Tensor:
    """Numbers with the parts (..., len(at)) in these places."""
    return (parts << torch.tensor(at, device=parts.device)).sum(dim=-1)


class IQ1_S(QuantType):
    needs_importance = True

    def decode(self, blocks: Tensor) -> Tensor:
        d, low, high = fields(blocks, 2, 32, 16)
        words = unsigned(high, torch.int16)
        entries = grid(self.name, low.int() | (shifts(words, 0, 3, 6, 9) & 7) << 8)
        return scaled(shifted(entries, words & 0x8000), half(d) * (2 * (words >> 12 & 7) + 1))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = ShiftedGrid(self.name, 32, _IQ1_LEVELS)
        d, scales, entries, down = fit_shifted(weights, importance, 8, levels)
        high = joined((entries >> 8).view(-1, 8, 4), 0, 3, 6, 9) | scales << 12 | down << 15
        return torch.cat(
            [half_bytes(d), (entries & 0xFF).to(torch.uint8), unsigned_bytes(high, torch.int16)], 1
        )


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

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        levels = ShiftedGrid(self.name, 8, _IQ1_LEVELS)
        d, scales, entries, down = fit_shifted(weights, importance, 16, levels)
        nibbles = pack((entries >> 8 | down << 3).to(torch.uint8), 4, run=1)
        quarters = unsigned(half_bytes(d), torch.int16) >> torch.arange(0, 16, 4, device=d.device) & 15
        words = joined(scales.view(-1, 4, 4), 0, 3, 6, 9) | quarters << 12
        return torch.cat([(entries & 0xFF).to(torch.uint8), nibbles, unsigned_bytes(words, torch.int16)], 1)
