"""Four-bit codes looked up in a table of sixteen: 4-bit floats, and non-linear integers.

The floats are those of the OCP Microscaling specification and of NVIDIA's NVFP4; ggml takes E2M1 doubled and
halves the scales to match. Layouts: ggml-common.h of ggml; the tables of sixteen: the gguf package.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from gguf import quants as gguf_quants
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, half_bytes, pack, unpack
from torchgguf.quants.fitting import (
    Levels,
    fit_block_scales,
    fit_scale,
    inverse,
    loss,
    presumed_importance,
    searchable,
    steps,
    stored_half,
)
from torchgguf.quants.k_quants import SIGNED_SCALES_OF_SIX_BITS, scaled


def _half_of_ue4m3(byte: int) -> float:
    exponent, mantissa = byte >> 3 & 0xF, byte & 7
    number = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return 0.0 if byte == 0x7F else number / 2


HALF_OF_E8M0 = tuple(2.0 ** (byte - 128) for byte in range(256))
#: Unsigned E4M3 with bias 7. As in ggml bit 7 counts for nothing, but 0x7F, and it alone, is zero.
HALF_OF_UE4M3 = tuple(_half_of_ue4m3(byte) for byte in range(256))


_FP4_VALUES = tuple(map(float, gguf_quants.MXFP4.kvalues))
_FP4 = Levels(tuple(sorted(set(_FP4_VALUES))), reach=steps(7, 14, 15))
_FP4_CODES = tuple(_FP4_VALUES.index(level) for level in _FP4.values)
_IQ4 = Levels(tuple(map(float, gguf_quants.IQ4_NL.kvalues)), reach=steps(-140, -90, 11) + steps(90, 120, 7))


def look_up(values: tuple[float, ...], codes: Tensor) -> Tensor:
    """values[code] for each code, in float32."""
    return torch.tensor(values, dtype=torch.float32, device=codes.device)[codes.int()]


def fp4_codes(levels: Tensor, run: int) -> Tensor:
    """Return the bytes of levels (n, k), two in one."""
    codes = torch.tensor(_FP4_CODES, dtype=torch.uint8, device=levels.device)
    return pack(codes[_FP4.codes(levels).int()], 4, run=run)


def best_scale_code(x: Tensor, w: Tensor, code: Tensor, scales: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Which of the codes (...) and their two neighbours loses least for groups (..., k); and the levels."""

    def fitted(code: Tensor) -> tuple[Tensor, Tensor]:
        scale = look_up(scales, code).unsqueeze(-1)
        q = _FP4.nearest(x * inverse(scale))
        return q, loss(x, w, scale * q)

    q, least = fitted(code)
    best = code
    for move in (-1, 1):
        tried = (code + move).clamp(0, len(scales) - 1)
        tried_q, tried_loss = fitted(tried)
        better = tried_loss < least
        best, least = torch.where(better, tried, best), torch.where(better, tried_loss, least)
        q = torch.where(better.unsqueeze(-1), tried_q, q)
    return best, q


class MXFP4(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        scale, nibbles = fields(blocks, 1, 16)
        return look_up(HALF_OF_E8M0, scale) * look_up(_FP4_VALUES, unpack(nibbles, 4, run=16))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        w = torch.ones_like(weights) if importance is None else importance
        most = weights.abs().amax(dim=1)
        above = torch.frexp(most).exponent  # of the power of two above it
        code = torch.where(most == 0, 0, (above + 124).clamp(0, 254))
        code, q = best_scale_code(weights, w, code, HALF_OF_E8M0[:255])
        return torch.cat([code.to(torch.uint8).unsqueeze(1), fp4_codes(q, run=16)], dim=1)


class NVFP4(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        scales, nibbles = fields(blocks, 4, 32)
        q = look_up(_FP4_VALUES, unpack(nibbles, 4, run=8))
        return scaled(q, look_up(HALF_OF_UE4M3, scales))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance, 4)
        scales = Levels(HALF_OF_UE4M3[:0x7F], reach=())
        code = scales.codes(fit_scale(x, w, _FP4)[0].abs())
        code, q = best_scale_code(x, w, code.int(), scales.values)
        return torch.cat([code.to(torch.uint8), fp4_codes(q.flatten(1), run=8)], dim=1)


class IQ4_NL(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, nibbles = fields(blocks, 2, 16)
        return half(d) * look_up(_IQ4.values, unpack(nibbles, 4, run=16))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance)
        w = presumed_importance(x) if importance is None else w
        d = stored_half(fit_scale(x, w, _IQ4)[0].unsqueeze(-1))
        return torch.cat([half_bytes(d), pack(_IQ4.codes(x * inverse(d)), 4, run=16)], dim=1)


class IQ4_XS(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, high, low, nibbles = fields(blocks, 2, 2, 4, 128)
        scales = unpack(low, 4, run=1) | unpack(high, 2, run=1) << 4
        q = look_up(_IQ4.values, unpack(nibbles, 4, run=16))
        return scaled(q, half(d) * (scales.float() - 32))

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance, 8)
        w = presumed_importance(x) if importance is None else w
        d, scales, levels = fit_block_scales(x, w, _IQ4, SIGNED_SCALES_OF_SIX_BITS)
        scales = SIGNED_SCALES_OF_SIX_BITS.codes(scales)
        low, high = pack(scales & 15, 4, run=1), pack(scales >> 4, 2, run=1)
        nibbles = pack(_IQ4.codes(levels.flatten(1)), 4, run=16)
        return torch.cat([half_bytes(d), high, low, nibbles], dim=1)
