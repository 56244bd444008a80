"""The search for scales: which factor (and which minimum) loses least when weights become codes.

Everywhere x are weights and w their importance, float32 (..., k) in groups of k. A group's loss is
sum w (x - x')**2, x' being what its codes unpack to. Codes are levels: the numbers that the scale multiplies.
For codes once chosen the best scale is a least-squares fit; so a few scales are tried, each weight goes to
its nearest level, and the fit that explains most is kept. (The idea is that of ggml's `make_qx_quants` and
`make_qkx2_quants`; here the loss is the plain one, and stored scales are searched once more together.)

Every operation is one that rounds the same way everywhere, and sums run from the first to the last: the
native encoders do the same and give the same bytes.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

# Weights closer to zero than this are taken for zero, those beyond its inverse are cut off: no FP16 scale
# reaches either, and their squares stay finite.
TINY = 2.0**-40

_FP16_MAX, _FP16_MIN = 65504.0, 2.0**-24


@dataclass(frozen=True)
class Levels:
    """Numbers in ascending order that codes stand for.

    `reach` lists the levels, and numbers between and beyond them, onto which a scale is tried to map a
    group's extreme weight (the first of those furthest from zero).
    """

    values: tuple[float, ...]
    reach: tuple[float, ...]
    positive_scales: bool = False
    rounds: int = 2
    """How often the scales of a block are searched in turn with what they are multiplied by."""
    integers: bool = field(init=False)

    def __post_init__(self) -> None:
        steps = {b - a for a, b in zip(self.values, self.values[1:], strict=False)}
        object.__setattr__(self, "integers", steps == {1})

    def nearest(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """Return the level nearest to each number; of two the even integer, or the lower one of a table."""
        if self.integers:
            return x.clamp(self.values[0], self.values[-1]).round()
        return torch.tensor(self.values, dtype=torch.float32, device=x.device)[self.index_of_nearest(x)]

    def index_of_nearest(self, x: Tensor) -> Tensor:
        middles = [(a + b) / 2 for a, b in zip(self.values, self.values[1:], strict=False)]
        return torch.bucketize(x, torch.tensor(middles, dtype=torch.float32, device=x.device))

    @property
    def spacing(self) -> float:
        """How far apart the levels are, where they are evenly so."""
        return self.values[1] - self.values[0]

    def codes(self, levels: Tensor) -> Tensor:
        """Return the places in `values`, uint8, of numbers that are levels."""
        if self.integers:
            return (levels - self.values[0]).to(torch.uint8)
        return self.index_of_nearest(levels).to(torch.uint8)


class JointLevels(Protocol):
    """Levels that several neighbours take together."""

    @property
    def rough(self) -> Levels:
        """Each by itself, which is quicker to find: the search for a scale begins with them."""

    @property
    def positive_scales(self) -> bool:
        """Whether no scale may be negative."""

    @property
    def rounds(self) -> int:
        """How often the scales of a block are searched in turn with what they are multiplied by."""

    def nearest(self, x: Tensor, w: Tensor) -> Tensor:
        """Return what is nearest to groups x (..., k) if errors in them are as important as w."""


def integers(low: int, high: int, *, reach: tuple[float, ...]) -> Levels:
    """Return the integers from `low` to `high`."""
    return Levels(tuple(map(float, range(low, high + 1))), reach)


def steps(first: float, last: float, count: int) -> tuple[float, ...]:
    """`count` numbers in equal steps."""
    return tuple(first + (last - first) * i / (count - 1) for i in range(count))


def total(numbers: Tensor) -> Tensor:
    """Return the sum over the last dimension, added up in order."""
    first, *rest = numbers.unbind(-1)
    for term in rest:
        first = first + term
    return first


def inverse(x: Tensor) -> Tensor:
    """1 / x, or 0 for zero and for what is next to it."""
    return torch.where(x.abs() < TINY * TINY, 0.0, 1 / x)


def searchable(weights: Tensor, importance: Tensor | None, *groups: int) -> tuple[Tensor, Tensor]:
    """Blocks (n, k) and their importance as (n, *groups, ...), with weights that a search can bear."""
    x = torch.where(weights.abs() < TINY, 0.0, weights.clamp(-1 / TINY, 1 / TINY))
    w = torch.ones_like(x) if importance is None else importance
    shape = (len(x), *groups, -1)
    return x.reshape(shape), w.reshape(shape)


def presumed_importance(x: Tensor) -> Tensor:
    """Return the importance to go by for groups x (..., k) where none is known: 1 + |x| / mean |x|.

    Errors in large weights harm a model more: on SmolLM2 in IQ4_NL, answers so diverge an eighth less than
    with the plain loss, for 4 % more of that.
    """
    size = x.abs()
    return 1 + size * inverse(total(size) / x.shape[-1]).unsqueeze(-1)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """Return the quotient a / b, or 0 where b is no positive number."""
    return torch.where(b > 0, a / b, 0.0)


def stored_half(x: Tensor) -> Tensor:
    """Numbers rounded to FP16 that stay finite, and stay away from zero if they are not zero."""
    sign, magnitude = x.sign(), x.abs().clamp(_FP16_MIN, _FP16_MAX)
    return (sign * magnitude).half().float()


def fit_scale(x: Tensor, w: Tensor, levels: Levels | JointLevels) -> tuple[Tensor, Tensor]:
    """Return the scale (...) for groups x (..., k), and its curvature: the cost of a squared error in it."""
    wx = w * x
    extreme = x.gather(-1, x.abs().argmax(dim=-1, keepdim=True))
    per_unit = inverse(extreme.abs() if levels.positive_scales else extreme)
    best_scale, best_gain, curvature = (torch.zeros_like(extreme[..., 0]) for _ in range(3))

    def attempt(factor: Tensor) -> None:
        nonlocal best_scale, best_gain, curvature
        q = levels.nearest(x * factor, w)
        wxq, wqq = total(wx * q), total(w * q * q)
        scale = quotient(wxq, wqq)
        better = wxq * scale > best_gain
        if levels.positive_scales:
            better &= scale > 0
        best_gain = torch.where(better, wxq * scale, best_gain)
        best_scale = torch.where(better, scale, best_scale)
        curvature = torch.where(better, wqq, curvature)

    if isinstance(levels, Levels):
        for level in levels.reach:
            attempt(level * per_unit)
    else:
        best_scale = fit_scale(x, w, levels.rough)[0]
    attempt(inverse(best_scale).unsqueeze(-1))
    return best_scale, curvature


def loss(x: Tensor, w: Tensor, unpacked: Tensor) -> Tensor:
    """Return the sum of w (x - unpacked)**2 over the last dimension."""
    error = x - unpacked
    return total(w * error * error)


def fit_block_scales(
    x: Tensor, w: Tensor, levels: Levels | JointLevels, scale_levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """For blocks x (n, groups, k): a factor (n, 1), scales (n, groups) and levels (n, groups, k).

    A weight is factor * scale * level, the factor an FP16 number and the scale one of `scale_levels`.
    """

    def nearest(d: Tensor, scales: Tensor) -> Tensor:
        return levels.nearest(x * inverse(d * scales).unsqueeze(-1), w)

    def losses(d: Tensor, scales: Tensor) -> Tensor:
        return loss(x, w, (d * scales).unsqueeze(-1) * nearest(d, scales))

    scale, curvature = fit_scale(x, w, levels)
    d = stored_half(fit_scale(scale, curvature, scale_levels)[0].unsqueeze(-1))
    scales = scale_levels.nearest(scale * inverse(d))
    least = losses(d, scales)
    for _ in range(levels.rounds):
        middle = scales
        for move in (-scale_levels.spacing, scale_levels.spacing):
            tried = scale_levels.nearest(middle + move)
            tried_loss = losses(d, tried)
            better = tried_loss < least
            scales, least = torch.where(better, tried, scales), torch.where(better, tried_loss, least)
        q = nearest(d, scales)
        wxq, wqq = total(w * x * q), total(w * q * q)
        fitted = quotient(total(wxq * scales), total(wqq * scales * scales))
        tried_d = stored_half(fitted.unsqueeze(-1))
        tried_loss = losses(tried_d, scales)
        better = (total(tried_loss) < total(least)).unsqueeze(-1)
        d, least = torch.where(better, tried_d, d), torch.where(better, tried_loss, least)
    return d, scales, nearest(d, scales)


def fit_line(x: Tensor, w: Tensor, levels: Levels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale and offset (...) for groups x (..., k) with levels from 0 on: a weight is scale * level + offset.

    The offset is not above zero. Third and fourth come the curvatures of both.
    """
    low, high = x.aminmax(dim=-1)
    low = low.clamp(max=0)
    y = x - low.unsqueeze(-1)
    per_unit = inverse(high - low)
    wy, sum_w = w * y, total(w)
    sum_wy = total(wy)
    best_gain, best_scale, best_offset, curvature = (torch.zeros_like(low) for _ in range(4))

    def attempt(factor: Tensor, offset: Tensor) -> None:
        nonlocal best_gain, best_scale, best_offset, curvature
        q = levels.nearest((y - offset.unsqueeze(-1)) * factor.unsqueeze(-1))
        wq = w * q
        wqy, wqq, sum_wq = total(wy * q), total(wq * q), total(wq)
        offset = quotient(wqq * sum_wy - sum_wq * wqy, sum_w * wqq - sum_wq * sum_wq)
        offset = torch.minimum(offset, -low)
        scale = quotient(wqy - offset * sum_wq, wqq)
        gain = scale * (2 * wqy - scale * wqq - 2 * offset * sum_wq) + offset * (2 * sum_wy - offset * sum_w)
        better = (gain > best_gain) & (scale > 0)
        best_gain = torch.where(better, gain, best_gain)
        best_scale = torch.where(better, scale, best_scale)
        best_offset = torch.where(better, offset, best_offset)
        curvature = torch.where(better, wqq, curvature)

    nothing = torch.zeros_like(low)
    for level in levels.reach:
        attempt(level * per_unit, nothing)
    for _ in range(2):
        attempt(inverse(best_scale), best_offset)
    return best_scale, low + best_offset, curvature, sum_w


def fit_stored_line(x: Tensor, w: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Scale and offset (..., 1), FP16 numbers, for groups x (..., k) with levels from 0 on.

    Fits are compared by what they lose once they are stored. What they explain, as in `fit_line`, is known to
    seven digits only: beside important weights, the unimportant would not count at all.
    """
    low, high = (bound.unsqueeze(-1) for bound in x.aminmax(dim=-1))
    y = x - low
    per_unit = inverse(high - low)
    wy, sum_w = w * y, total(w).unsqueeze(-1)
    sum_wy = total(wy).unsqueeze(-1)
    best_scale, best_offset = torch.zeros_like(low), stored_half(low)
    least = torch.full_like(low, torch.inf)

    def attempt(factor: Tensor, offset: Tensor) -> None:
        nonlocal best_scale, best_offset, least
        q = levels.nearest((y - offset) * factor)
        wq = w * q
        wqy, wqq, sum_wq = (total(terms).unsqueeze(-1) for terms in (wy * q, wq * q, wq))
        offset = quotient(wqq * sum_wy - sum_wq * wqy, sum_w * wqq - sum_wq * sum_wq)
        scale = stored_half(quotient(wqy - offset * sum_wq, wqq))
        offset = stored_half(low + offset)
        lost = loss(x, w, scale * q + offset).unsqueeze(-1)
        better = (lost < least) & (scale > 0)
        least = torch.where(better, lost, least)
        best_scale = torch.where(better, scale, best_scale)
        best_offset = torch.where(better, offset, best_offset)

    nothing = torch.zeros_like(low)
    for level in levels.reach:
        attempt(level * per_unit, nothing)
    for _ in range(2):
        attempt(inverse(best_scale), best_offset - low)
    return best_scale, best_offset


def fit_block_lines(
    x: Tensor, w: Tensor, levels: Levels, scale_levels: Levels
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For blocks x (n, groups, k): d and dmin (n, 1), scales and minima (n, groups), levels (n, groups, k).

    A weight is d * scale * level - dmin * minimum.
    """

    def nearest(d: Tensor, dmin: Tensor, scales: Tensor, minima: Tensor) -> Tensor:
        return levels.nearest((x + (dmin * minima).unsqueeze(-1)) * inverse(d * scales).unsqueeze(-1))

    def losses(d: Tensor, dmin: Tensor, scales: Tensor, minima: Tensor) -> Tensor:
        q = nearest(d, dmin, scales, minima)
        return loss(x, w, (d * scales).unsqueeze(-1) * q - (dmin * minima).unsqueeze(-1))

    scale, offset, curvature, sum_w = fit_line(x, w, levels)
    d = stored_half(fit_scale(scale, curvature, scale_levels)[0].unsqueeze(-1))
    dmin = stored_half(fit_scale(-offset, sum_w, scale_levels)[0].unsqueeze(-1))
    scales, minima = scale_levels.nearest(scale * inverse(d)), scale_levels.nearest(-offset * inverse(dmin))
    wx = w * x
    sum_wx = total(wx)
    least = losses(d, dmin, scales, minima)
    for _ in range(levels.rounds):
        middle, minima_before = scales, minima
        for move in (0, -1, 1):
            tried = scale_levels.nearest(middle + move)
            q = nearest(d, dmin, tried, minima_before)
            offset = quotient(d * tried * total(w * q) - sum_wx, sum_w)  # the best for these codes
            tried_minima = scale_levels.nearest(offset * inverse(dmin))
            tried_loss = losses(d, dmin, tried, tried_minima)
            better = tried_loss < least
            scales, minima = torch.where(better, tried, scales), torch.where(better, tried_minima, minima)
            least = torch.where(better, tried_loss, least)
        q = nearest(d, dmin, scales, minima)
        wq = w * q
        # The normal equations of d and dmin for these codes, with a = scale * level and b = minimum.
        aa, ab = total(total(wq * q) * scales * scales), total(total(wq) * scales * minima)
        bb = total(sum_w * minima * minima)
        ax, bx = total(total(wx * q) * scales), total(sum_wx * minima)
        fitted_min = quotient(ab * ax - aa * bx, aa * bb - ab * ab)
        fitted = quotient(ax + fitted_min * ab, aa)
        tried_d, tried_dmin = (stored_half(t.clamp(min=0).unsqueeze(-1)) for t in (fitted, fitted_min))
        tried_loss = losses(tried_d, tried_dmin, scales, minima)
        better = (total(tried_loss) < total(least)).unsqueeze(-1)
        d, dmin = torch.where(better, tried_d, d), torch.where(better, tried_dmin, dmin)
        least = torch.where(better, tried_loss, least)
    return d, dmin, scales, minima, nearest(d, dmin, scales, minima)
