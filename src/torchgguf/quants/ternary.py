"""One and two bits a weight, and three values a weight. Layouts: ggml-common.h of ggml."""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, unpack


class Q1_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, signs = fields(blocks, 2, 16)
        return half(d) * (2 * unpack(signs, 1, run=1).float() - 1)


class Q2_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, crumbs = fields(blocks, 2, 16)
        return half(d) * (unpack(crumbs, 2, run=1).float() - 1)


def digits(data: Tensor, count: int, run: int) -> Tensor:
    """Splits bytes (n, k) into `count` ternary digits each, in runs as `unpack` does, the highest first.

    A byte is a fraction of one, in 256ths: three times it is the next digit and, in the low byte, the rest.
    """
    powers = torch.tensor([3**i for i in range(count)], dtype=torch.uint8, device=data.device).view(-1, 1)
    fractions = data.reshape(len(data), -1, 1, run) * powers  # modulo 256
    return (fractions.int() * 3 >> 8).flatten(1)


class TQ1_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        first, second, last, d = fields(blocks, 32, 16, 4, 2)
        q = torch.cat([digits(first, 5, run=32), digits(second, 5, run=16), digits(last, 4, run=4)], dim=1)
        return half(d) * (q - 1)


class TQ2_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        crumbs, d = fields(blocks, 64, 2)
        return half(d) * (unpack(crumbs, 2, run=32).float() - 1)
