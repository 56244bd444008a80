"""Logits processors that shape the distribution to draw from, by the same rules as those in `logits_process`.

`keep`: how many of the best tokens survive in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.logits_process import NEVER, LogitsProcessor
from torchgguf.generation.sampling import top_candidates

NUCLEUS_CANDIDATES = (256, 4096)


class Temperature(LogitsProcessor):
    """Divide the scores: below 1 sharpens the distribution, above 1 flattens it."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores / self.temperature


class TopK(LogitsProcessor):
    """Keep the `top_k` best tokens and those that tie with the last of them (1805.04833)."""

    def __init__(self, top_k: int, keep: int = 1) -> None:
        self.top_k = max(top_k, keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores.masked_fill(scores < _best(scores, self.top_k), NEVER)

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the best tokens: twice as many candidates leave room for ties with the last one."""
        if 2 * self.top_k >= scores.shape[-1]:
            return None
        best, tokens = top_candidates(scores, 2 * self.top_k)
        return best.masked_fill(best < best[:, self.top_k - 1 : self.top_k], NEVER), tokens


class TopP(LogitsProcessor):
    """Keep the fewest best tokens whose probabilities add up to at least `top_p` (1904.09751)."""

    def __init__(self, top_p: float, keep: int = 1) -> None:
        self.top_p = top_p
        self.keep = keep

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        ascending, order = scores.sort(dim=-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
        drop[:, -self.keep :] = False
        return scores.masked_fill(drop.scatter(1, order, drop), NEVER)

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the best of some hundred or thousand candidates, if these hold `top_p` of the mass."""
        if scores.device.type != "cpu":
            return None  # a GPU sorts faster than it answers whether it needs to
        total = scores.logsumexp(-1, keepdim=True)
        for candidates in NUCLEUS_CANDIDATES:
            if candidates >= scores.shape[-1]:
                break
            best, tokens = top_candidates(scores, candidates)
            probability = (best - total).exp()
            mass = probability.cumsum(-1)
            if bool((mass[:, -1] >= self.top_p).all()):
                drop = mass - probability >= self.top_p
                drop[:, : self.keep] = False
                return best.masked_fill(drop, NEVER), tokens
        return None


class Typical(LogitsProcessor):
    """Keep the tokens that surprise most nearly as much as expected, until they hold `mass` (2202.00666)."""

    def __init__(self, mass: float, keep: int = 1) -> None:
        self.mass = mass
        self.keep = keep

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        odd = (scores.log_softmax(-1) + _entropy(scores)).abs()
        ascending, order = odd.sort(dim=-1)
        mass = scores.gather(1, order).softmax(-1).cumsum(-1)
        last = (mass < self.mass).sum(1, keepdim=True).clamp(self.keep - 1, scores.shape[-1] - 1)
        return scores.masked_fill(odd > ascending.gather(1, last), NEVER)


class Cutoff(LogitsProcessor):
    """Base of those that keep tokens of at least some probability."""

    def __init__(self, value: float, keep: int = 1) -> None:
        self.value = value
        self.keep = keep

    def least(self, scores: Tensor, probability: Tensor) -> Tensor | float:
        """Return the lowest probability to keep, (batch, 1) or for all rows, of (batch, vocabulary)."""
        raise NotImplementedError

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        probability = scores.softmax(-1)
        drop = (probability < self.least(scores, probability)) & (scores < _best(scores, self.keep))
        return scores.masked_fill(drop, NEVER)


class MinP(Cutoff):
    """Keep tokens with at least `value` times the probability of the best one (2407.01082)."""

    def least(self, scores: Tensor, probability: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return probability.amax(-1, keepdim=True) * self.value


class Epsilon(Cutoff):
    """Keep tokens with a probability of at least `value` (2210.15191)."""

    def least(self, scores: Tensor, probability: Tensor) -> float:
        """Return new scores; see the class."""
        return self.value


class Eta(Cutoff):
    """Keep tokens with a probability of at least `value`, less if the distribution is flat (2210.15191)."""

    def least(self, scores: Tensor, probability: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return ((-_entropy(scores)).exp() * math.sqrt(self.value)).clamp(max=self.value)


class LogNormalization(LogitsProcessor):
    """Make the scores log-probabilities."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores.log_softmax(-1)


def _best(scores: Tensor, k: int) -> Tensor:
    """Return the k-th best score of each row, (batch, 1); the last one if there are fewer."""
    if k == 1:
        return scores.amax(-1, keepdim=True)
    return scores.topk(min(k, scores.shape[-1])).values[:, -1:]


def _entropy(scores: Tensor) -> Tensor:
    """Return the entropy (batch, 1) of each row's distribution, in nats."""
    log_probability = scores.log_softmax(-1)
    return -(log_probability * log_probability.exp()).nansum(-1, keepdim=True)  # 0 times -inf is 0


# The field, the value (None is another) at which it does nothing, what makes the processor; in the order of
# application.
_WARPERS: tuple[tuple[str, Any, Callable[[Any, int], LogitsProcessor]], ...] = (
    ("temperature", 1.0, lambda temperature, keep: Temperature(temperature)),
    ("top_k", 0, TopK),
    ("top_p", 1.0, TopP),
    ("min_p", 0.0, MinP),
    ("typical_p", 1.0, Typical),
    ("epsilon_cutoff", 0.0, Epsilon),
    ("eta_cutoff", 0.0, Eta),
)


def warpers_for(config: GenerationConfig) -> list[LogitsProcessor]:
    """Return the processors that come last, in order; without `do_sample` they shape nothing."""
    # As every beam may draw an end, and there must be something else to go on with.
    keep = max(2, len(config.eos_token_ids) + 1) if (config.num_beams or 1) > 1 else 1
    warpers = [
        make(value, keep)
        for field, neutral, make in _WARPERS
        if config.do_sample and (value := getattr(config, field)) is not None and value != neutral
    ]
    return [*warpers, LogNormalization()] if config.renormalize_logits else warpers
