"""Logits processors that shape the distribution to draw from, by the same rules as those in `logits_process`.

Names and arguments are those of transformers.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from torchgguf.generation.logits_process import NEVER, LogitsProcessor
from torchgguf.generation.sampling import top_candidates

NUCLEUS_CANDIDATES = (256, 4096)


class Filter(LogitsProcessor):
    """Base of those that keep some tokens, and at least `min_tokens_to_keep` of them."""

    def __init__(self, filter_value: float, min_tokens_to_keep: int) -> None:
        if not isinstance(min_tokens_to_keep, int) or min_tokens_to_keep < 1:
            raise ValueError(f"min_tokens_to_keep must be a whole number above 0, got {min_tokens_to_keep}")
        self.filter_value = filter_value
        self.keep = self.min_tokens_to_keep = min_tokens_to_keep


def _within(allowed: bool, name: str, wish: str, value: float) -> float:
    if not allowed:
        raise ValueError(f"{name} must be {wish}, got {value}")
    return value


class TemperatureLogitsWarper(LogitsProcessor):
    """Divide the scores: below 1 sharpens the distribution, above 1 flattens it.

    Args:
        temperature: above 0.

    Raises:
        ValueError: the temperature is not above 0.
    """

    def __init__(self, temperature: float) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}: use do_sample=False")
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores / self.temperature


class TopKLogitsWarper(Filter):
    """Keep the `top_k` best tokens and those that tie with the last of them (1805.04833).

    Args:
        top_k: above 0.
        filter_value: the score of other tokens.
        min_tokens_to_keep: how many of the best tokens survive in any case.

    Raises:
        ValueError: `top_k` is not above 0.
    """

    def __init__(self, top_k: int, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        if not isinstance(top_k, int) or top_k <= 0:
            raise ValueError(f"top_k must be a whole number above 0, got {top_k}")
        self.top_k = max(top_k, min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores.masked_fill(scores < _best(scores, self.top_k), self.filter_value)

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the best tokens: twice as many candidates leave room for ties with the last one."""
        if 2 * self.top_k >= scores.shape[-1] or self.filter_value != NEVER:
            return None
        best, tokens = top_candidates(scores, 2 * self.top_k)
        return best.masked_fill(best < best[:, self.top_k - 1 : self.top_k], NEVER), tokens


class TopPLogitsWarper(Filter):
    """Keep the fewest best tokens whose probabilities add up to at least `top_p` (1904.09751).

    Args:
        top_p: between 0 and 1.
        filter_value: the score of other tokens.
        min_tokens_to_keep: how many of the best tokens survive in any case.

    Raises:
        ValueError: `top_p` is not between 0 and 1.
    """

    def __init__(self, top_p: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_p = _within(0 <= top_p <= 1, "top_p", "between 0 and 1", top_p)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        ascending, order = scores.sort(dim=-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
        drop[:, -self.keep :] = False
        return scores.masked_fill(drop.scatter(1, order, drop), self.filter_value)

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the best of some hundred or thousand candidates, if these hold `top_p` of the mass."""
        if scores.device.type != "cpu" or self.filter_value != NEVER:
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


class TypicalLogitsWarper(Filter):
    """Keep the tokens that surprise most nearly as much as expected, until they hold `mass` (2202.00666).

    Args:
        mass: between 0 and 1.
        filter_value: the score of other tokens.
        min_tokens_to_keep: how many tokens survive in any case.

    Raises:
        ValueError: `mass` is not between 0 and 1.
    """

    def __init__(self, mass: float = 0.9, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.mass = _within(0 < mass < 1, "mass", "above 0 and below 1", mass)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        odd = (scores.log_softmax(-1) + _entropy(scores)).abs()
        ascending, order = odd.sort(dim=-1)
        mass = scores.gather(1, order).softmax(-1).cumsum(-1)
        last = (mass < self.mass).sum(1, keepdim=True).clamp(self.keep - 1, scores.shape[-1] - 1)
        return scores.masked_fill(odd > ascending.gather(1, last), self.filter_value)


class Cutoff(Filter):
    """Base of those that keep tokens of at least some probability."""

    def least(self, scores: Tensor, probability: Tensor) -> Tensor | float:
        """Return the lowest probability to keep, (batch, 1) or for all rows, of (batch, vocabulary)."""
        raise NotImplementedError

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        probability = scores.softmax(-1)
        drop = (probability < self.least(scores, probability)) & (scores < _best(scores, self.keep))
        return scores.masked_fill(drop, self.filter_value)


class MinPLogitsWarper(Cutoff):
    """Keep tokens with at least `min_p` times the probability of the best one (2407.01082).

    Args:
        min_p: between 0 and 1.
        filter_value: the score of other tokens.
        min_tokens_to_keep: how many of the best tokens survive in any case.

    Raises:
        ValueError: `min_p` is not between 0 and 1.
    """

    def __init__(self, min_p: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.min_p = _within(0 <= min_p <= 1, "min_p", "between 0 and 1", min_p)

    def least(self, scores: Tensor, probability: Tensor) -> Tensor:
        """Return the lowest probability to keep."""
        return probability.amax(-1, keepdim=True) * self.min_p


class EpsilonLogitsWarper(Cutoff):
    """Keep tokens with a probability of at least `epsilon` (2210.15191).

    Args:
        epsilon: above 0 and below 1.
        filter_value: the score of other tokens.
        min_tokens_to_keep: how many of the best tokens survive in any case.

    Raises:
        ValueError: `epsilon` is not above 0 and below 1.
    """

    def __init__(self, epsilon: float, filter_value: float = NEVER, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = _within(0 < epsilon < 1, "epsilon", "above 0 and below 1", epsilon)

    def least(self, scores: Tensor, probability: Tensor) -> float:
        """Return the lowest probability to keep."""
        return self.epsilon


class EtaLogitsWarper(Cutoff):
    """Keep tokens with a probability of at least `epsilon`, less if the distribution is flat (2210.15191).

    Args:
        epsilon: above 0 and below 1.
        filter_value: the score of other tokens.
        min_tokens_to_keep: how many of the best tokens survive in any case.
        device: has no effect: tensors follow the scores.

    Raises:
        ValueError: `epsilon` is not above 0 and below 1.
    """

    def __init__(
        self,
        epsilon: float,
        filter_value: float = NEVER,
        min_tokens_to_keep: int = 1,
        device: Any = "cpu",
    ) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = _within(0 < epsilon < 1, "epsilon", "above 0 and below 1", epsilon)

    def least(self, scores: Tensor, probability: Tensor) -> Tensor:
        """Return the lowest probability to keep."""
        return ((-_entropy(scores)).exp() * math.sqrt(self.epsilon)).clamp(max=self.epsilon)


class LogitNormalization(LogitsProcessor):
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
