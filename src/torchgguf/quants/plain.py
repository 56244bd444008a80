"""Types that are no packing: each number by itself, as torch stores it."""

from typing import ClassVar

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import reinterpret


class PlainType(QuantType, abstract=True):
    """Blocks of one number. Encoding rounds to `dtype` as torch does."""

    dtype: ClassVar[torch.dtype]

    def decode(self, blocks: Tensor) -> Tensor:
        return reinterpret(blocks, self.dtype)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        return weights.to(self.dtype).contiguous().view(torch.uint8)


class F32(PlainType):
    dtype = torch.float32


class F16(PlainType):
    dtype = torch.float16


class BF16(PlainType):
    dtype = torch.bfloat16


class F64(PlainType):
    dtype = torch.float64


class I8(PlainType):
    dtype = torch.int8


class I16(PlainType):
    dtype = torch.int16


class I32(PlainType):
    dtype = torch.int32


class I64(PlainType):
    dtype = torch.int64
