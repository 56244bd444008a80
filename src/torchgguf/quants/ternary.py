"""One and two bits a weight, and three values a weight. Layouts: ggml-common.h of ggml.

ggml takes the largest weight for the scale, as suits weights that are ternary to begin with. Here, as for all
types, it is the one that loses least: the same for those, and a better one for others.
"""

# ruff: noqa: N801 (classes bear the names that ggml gives the types)

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType
from torchgguf.quants.bits import fields, half, half_bytes, pack, unpack
from torchgguf.quants.fitting import (
    Levels,
    fit_scale,
    integers,
    inverse,
    quotient,
    searchable,
    steps,
    stored_half,
    total,
)

_TERNARY = integers(-1, 1, reach=steps(1, 4.75, 16))
_UP_TO_TWO = integers(-1, 2, reach=steps(1, 2.5, 7) + steps(-2.5, -1, 7))


def scale_and_codes(weights: Tensor, importance: Tensor | None, levels: Levels) -> tuple[Tensor, Tensor]:
    """Return the bytes of the scales (n, 2), and the codes (n, k)."""
    x, w = searchable(weights, importance)
    d = stored_half(fit_scale(x, w, levels)[0].unsqueeze(-1))
    return half_bytes(d), levels.codes(levels.nearest(x * inverse(d)))


class Q1_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, signs = fields(blocks, 2, 16)
        return half(d) * (2 * unpack(signs, 1, run=1).float() - 1)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        x, w = searchable(weights, importance)
        d = quotient(total(w * x.abs()), total(w)).unsqueeze(-1)
        return torch.cat([half_bytes(d), pack((x >= 0).byte(), 1, run=1)], dim=1)


class Q2_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        d, crumbs = fields(blocks, 2, 16)
        return half(d) * (unpack(crumbs, 2, run=1).float() - 1)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, codes = scale_and_codes(weights, importance, _UP_TO_TWO)
        return torch.cat([d, pack(codes, 2, run=1)], dim=1)


def digits(data: Tensor, count: int, run: int) -> Tensor:
    """Split bytes (n, k) into `count` ternary digits each, in runs as `unpack` does, the highest first.

    A byte is a fraction of one, in 256ths: three times it is the next digit and, in the low byte, the rest.
    """
    powers = torch.tensor([3**i for i in range(count)], dtype=torch.uint8, device=data.device).view(-1, 1)
    fractions = data.reshape(len(data), -1, 1, run) * powers  # modulo 256
    return (fractions.int() * 3 >> 8).flatten(1)


def from_digits(codes: Tensor, count: int, run: int) -> Tensor:
    """Bytes of `count` ternary digits each; `digits` undone."""
    powers = torch.tensor([3 ** (4 - i) for i in range(count)], device=codes.device).view(-1, 1)
    number = (codes.reshape(len(codes), -1, count, run) * powers).sum(dim=2)  # in 243rds of one
    return ((number * 256 + 242) // 243).to(torch.uint8).flatten(1)


class TQ1_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        first, second, last, d = fields(blocks, 32, 16, 4, 2)
        q = torch.cat([digits(first, 5, run=32), digits(second, 5, run=16), digits(last, 4, run=4)], dim=1)
        return half(d) * (q - 1)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, codes = scale_and_codes(weights, importance, _TERNARY)
        first, second, last = fields(codes, 160, 80, 16)
        digit_bytes = [from_digits(first, 5, 32), from_digits(second, 5, 16), from_digits(last, 4, 4)]
        return torch.cat([*digit_bytes, d], dim=1)


class TQ2_0(QuantType):
    def decode(self, blocks: Tensor) -> Tensor:
        crumbs, d = fields(blocks, 64, 2)
        return half(d) * (unpack(crumbs, 2, run=32).float() - 1)

    def encode(self, weights: Tensor, importance: Tensor | None = None) -> Tensor:
        d, codes = scale_and_codes(weights, importance, _TERNARY)
        return torch.cat([pack(codes, 2, run=32), d], dim=1)
