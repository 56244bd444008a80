"""Four-bit codes looked up in a table of sixteen: 4-bit floats, and non-linear integers.

The floats are those of the OCP Microscaling specification and of NVIDIA's NVFP4; ggml takes E2M1 doubled and
halves the scales to match. Layouts: ggml-common.h of ggml; the tables of sixteen: the gguf package.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from gguf import quants as gguf_quants
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, unpack
from torchgguf.quants.k_quants import scaled


def _half_of_ue4m3(byte: int) -> float:
    exponent, mantissa = byte >> 3 & 0xF, byte & 7
    number = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return 0.0 if byte == 0x7F else number / 2


HALF_OF_E8M0 = tuple(2.0 ** (byte - 128) for byte in range(256))
#: Unsigned E4M3 with bias 7. As in ggml bit 7 counts for nothing, but 0x7F, and it alone, is zero.
HALF_OF_UE4M3 = tuple(_half_of_ue4m3(byte) for byte in range(256))


def look_up(values: tuple[float, ...], codes: Tensor) -> Tensor:
    """values[code] for each code, in float32."""
    return torch.tensor(values, dtype=torch.float32, device=codes.device)[codes.int()]


class MXFP4(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        scale, nibbles = fields(blocks, 1, 16)
        return look_up(HALF_OF_E8M0, scale) * look_up(gguf_quants.MXFP4.kvalues, unpack(nibbles, 4, run=16))


class NVFP4(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        scales, nibbles = fields(blocks, 4, 32)
        q = look_up(gguf_quants.NVFP4.kvalues, unpack(nibbles, 4, run=8))
        return scaled(q, look_up(HALF_OF_UE4M3, scales))


class IQ4_NL(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, nibbles = fields(blocks, 2, 16)
        return half(d) * look_up(gguf_quants.IQ4_NL.kvalues, unpack(nibbles, 4, run=16))


class IQ4_XS(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, high, low, nibbles = fields(blocks, 2, 2, 4, 128)
        scales = unpack(low, 4, run=1) | unpack(high, 2, run=1) << 4
        q = look_up(gguf_quants.IQ4_NL.kvalues, unpack(nibbles, 4, run=16))
        return scaled(q, half(d) * (scales.float() - 32))
