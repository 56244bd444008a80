"""Logits processors: each turns the scores of the next token, (batch, vocabulary) float32, into better ones.

Definitions and order of application are those of transformers (`generation/logits_process.py`), so the same
settings leave the same distribution. The ones that only serve sampling can also *narrow*: hand on just the
few tokens that survive, which spares everything after them the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.sampling import top_candidates

NEVER = float("-inf")
NUCLEUS_CANDIDATES = (256, 4096)

Processor = Callable[[Tensor, Tensor], Tensor]
"""`(input_ids (batch, length), scores (batch, vocabulary)) -> scores`; what users may pass to `generate`."""


class LogitsProcessor:
    """Base class of the processors."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores (batch, vocabulary), given the tokens so far (batch, length)."""
        raise NotImplementedError

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """The surviving `(scores, token ids)`, both (batch, few), or None where that would save nothing."""
        return None


class RepetitionPenalty(LogitsProcessor):
    """Divide the positive scores of tokens that occurred by `penalty`, multiply the negative ones.

    From CTRL (1909.05858). `padding`: (batch,) how many tokens at the left of each row are padding and do
    not count.
    """

    def __init__(self, penalty: float, padding: Tensor | None = None) -> None:
        self.penalty = penalty
        self.padding = padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        if self.padding is not None:  # a row's last token stands in for its padding: it counts anyway
            position = torch.arange(input_ids.shape[1], device=input_ids.device)
            input_ids = torch.where(position < self.padding[:, None], input_ids[:, -1:], input_ids)
        seen = scores.gather(1, input_ids)
        seen = torch.where(seen < 0, seen * self.penalty, seen / self.penalty)
        return scores.scatter(1, input_ids, seen)


class MinLength(LogitsProcessor):
    """Forbid the tokens that end the text until it has `min_length` tokens, the prompt included."""

    def __init__(self, min_length: int, eos_token_ids: Sequence[int]) -> None:
        self.min_length = min_length
        self.eos_token_ids = list(eos_token_ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        if input_ids.shape[1] >= self.min_length:
            return scores
        index = torch.tensor(self.eos_token_ids, device=scores.device)
        return scores.index_fill(1, index, NEVER)


class Temperature(LogitsProcessor):
    """Divide the scores: below 1 sharpens the distribution, above 1 flattens it."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        return scores / self.temperature


class TopK(LogitsProcessor):
    """Keep the `top_k` best tokens and those that tie with the last of them (1805.04833)."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        last = scores.topk(min(self.top_k, scores.shape[-1])).values[:, -1:]
        return scores.masked_fill(scores < last, NEVER)

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """As many candidates again as asked for leave room for ties with the last one."""
        if 2 * self.top_k >= scores.shape[-1]:
            return None
        best, tokens = top_candidates(scores, 2 * self.top_k)
        return best.masked_fill(best < best[:, self.top_k - 1 : self.top_k], NEVER), tokens


class TopP(LogitsProcessor):
    """Keep the fewest best tokens whose probabilities add up to at least `top_p` (1904.09751)."""

    def __init__(self, top_p: float) -> None:
        self.top_p = top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        ascending, order = scores.sort(dim=-1)
        drop = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
        drop[:, -1] = False
        return scores.masked_fill(drop.scatter(1, order, drop), NEVER)

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Sort some hundred or thousand candidates, not the vocabulary, if they hold `top_p` of the mass."""
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
                drop[:, 0] = False
                return best.masked_fill(drop, NEVER), tokens
        return None


class MinP(LogitsProcessor):
    """Keep tokens with at least `min_p` times the probability of the best one (2407.01082)."""

    def __init__(self, min_p: float) -> None:
        self.min_p = min_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        probability = scores.softmax(-1)
        return scores.masked_fill(probability < self.min_p * probability.amax(-1, keepdim=True), NEVER)


def processors_for(
    config: GenerationConfig, prompt_length: int, padding: Tensor | None = None
) -> list[LogitsProcessor]:
    """The processors that apply to greedy and sampled decoding alike, in order."""
    processors: list[LogitsProcessor] = []
    if config.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenalty(config.repetition_penalty, padding))
    min_length = max(
        config.min_length or 0, prompt_length + config.min_new_tokens if config.min_new_tokens else 0
    )
    if min_length > prompt_length and config.eos_token_ids:
        processors.append(MinLength(min_length, config.eos_token_ids))
    return processors


def warpers_for(config: GenerationConfig) -> list[LogitsProcessor]:
    """The processors that shape the distribution to draw from, in order; none without `do_sample`."""
    warpers: list[LogitsProcessor] = []
    if not config.do_sample:
        return warpers
    if config.temperature not in (None, 1.0):
        warpers.append(Temperature(config.temperature))
    if config.top_k:
        warpers.append(TopK(config.top_k))
    if config.top_p is not None and config.top_p < 1:
        warpers.append(TopP(config.top_p))
    if config.min_p is not None:
        warpers.append(MinP(config.min_p))
    return warpers
