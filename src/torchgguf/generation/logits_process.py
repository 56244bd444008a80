"""Logits processors: each changes the scores of the next token, (batch, vocabulary) float32.

Definitions and order of application are those of transformers (`generation/logits_process.py`), so the same
settings leave the same distribution. Those here serve every way of decoding; what shapes a distribution to
draw from is in `logits_warp`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.ranges import as_tokens

NEVER = float("-inf")

Processor = Callable[[Tensor, Tensor], Tensor]
"""`(input_ids (batch, length), scores (batch, vocabulary)) -> scores`; what users may pass to `generate`."""


class LogitsProcessor:
    """Base class of the processors."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores (batch, vocabulary), given the tokens so far (batch, length)."""
        raise NotImplementedError

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the surviving `(scores, token ids)`, both (batch, few), or None where that saves nothing.

        Processors for sampling only may return just the tokens that survive them. So everything after them
        works on few tokens, not on the whole vocabulary.
        """
        return None


def _check_vocabulary(token: int, scores: Tensor) -> None:
    if token >= scores.shape[-1]:
        raise ValueError(f"tokens must be below the vocabulary's size of {scores.shape[-1]}, got {token}")


def _index(token_ids: Sequence[int], scores: Tensor) -> Tensor:
    """Return token ids as an index into scores.

    Raises:
        ValueError: a token is outside the vocabulary.
    """
    _check_vocabulary(max(token_ids, default=0), scores)
    return torch.tensor(token_ids, dtype=torch.long, device=scores.device)


class SequenceBias(LogitsProcessor):
    """Add to the score of a sequence's last token, where the tokens so far end in the rest of it.

    Args:
        sequences: from token ids to what to add, -inf to forbid the sequence.
    """

    def __init__(self, sequences: Mapping[tuple[int, ...], float]) -> None:
        self._largest = max(token for tokens in sequences for token in tokens)
        groups = defaultdict(list)  # those of one length are compared at once
        for tokens, bias in sequences.items():
            groups[len(tokens)].append((tokens, bias))
        self._groups = [
            (torch.tensor([tokens for tokens, _ in group]), torch.tensor([float(bias) for _, bias in group]))
            for group in groups.values()
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        _check_vocabulary(self._largest, scores)
        device, length = scores.device, input_ids.shape[1]
        self._groups = [(sequences.to(device), biases.to(device)) for sequences, biases in self._groups]
        total = torch.zeros_like(scores)
        for sequences, biases in self._groups:
            start = length + 1 - sequences.shape[1]
            if start >= 0:
                fits = (input_ids[:, None, start:] == sequences[:, :-1]).all(-1)
                total.index_add_(1, sequences[:, -1], torch.where(fits, biases, 0.0).to(total.dtype))
        return scores + total


class RepetitionPenalty(LogitsProcessor):
    """Divide the positive scores of tokens that occurred by `penalty`, multiply the negative ones.

    From CTRL (Keskar et al. 2019, arXiv 1909.05858).

    Args:
        penalty: above 0; 1 changes nothing.
        padding: (batch,), how many tokens at the left of each row are padding and do not count.
    """

    def __init__(self, penalty: float, padding: Tensor | None = None) -> None:
        self.penalty = penalty
        self.padding = padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        if self.padding is not None:  # a row's last token stands in for its padding: it counts anyway
            position = torch.arange(input_ids.shape[1], device=input_ids.device)
            input_ids = torch.where(position < self.padding[:, None], input_ids[:, -1:], input_ids)
        seen = scores.gather(1, input_ids)
        seen = torch.where(seen < 0, seen * self.penalty, seen / self.penalty)
        return scores.scatter(1, input_ids, seen)


class NoRepeatNGram(LogitsProcessor):
    """Forbid the tokens by which a sequence of `size` tokens would occur again."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        length = input_ids.shape[1]
        if length < self.size:
            return scores
        grams = input_ids.unfold(1, self.size, 1)  # (batch, length - size + 1, size)
        begun = (grams[..., :-1] == input_ids[:, None, length + 1 - self.size :]).all(-1)
        return scores.scatter_add(1, grams[..., -1], torch.where(begun, NEVER, 0.0).to(scores.dtype))


class MinLength(LogitsProcessor):
    """Forbid the tokens that end the text until it has `min_length` tokens, the prompt included."""

    def __init__(self, min_length: int, eos_token_ids: Sequence[int]) -> None:
        self.min_length = min_length
        self.eos_token_ids = list(eos_token_ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        if input_ids.shape[1] >= self.min_length:
            return scores
        return scores.index_fill(1, _index(self.eos_token_ids, scores), NEVER)


class Forced(LogitsProcessor):
    """Allow only these tokens, each as likely, after `length` tokens."""

    def __init__(self, token_ids: Sequence[int], length: int) -> None:
        self.token_ids = list(token_ids)
        self.length = length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        if input_ids.shape[1] != self.length:
            return scores
        return torch.full_like(scores, NEVER).index_fill_(1, _index(self.token_ids, scores), 0.0)


class ExponentialDecay(LogitsProcessor):
    """Raise the scores of the tokens that end the text, from `start` tokens on, the prompt included.

    After n more tokens by `factor ** n - 1` of their magnitude.
    """

    def __init__(self, start: int, factor: float, eos_token_ids: Sequence[int]) -> None:
        self.start = start
        self.factor = factor
        self.eos_token_ids = list(eos_token_ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        over = input_ids.shape[1] - self.start
        if over <= 0:
            return scores
        ends = _index(self.eos_token_ids, scores)
        magnitude = scores[:, ends].abs().nan_to_num(posinf=0.0)  # what is forbidden (-inf) stays so
        return scores.index_add(1, ends, magnitude * (self.factor**over - 1))


class Suppress(LogitsProcessor):
    """Forbid these tokens, always or only after `length` tokens."""

    def __init__(self, token_ids: Sequence[int], length: int | None = None) -> None:
        self.token_ids = list(token_ids)
        self.length = length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        if self.length not in (None, input_ids.shape[1]):
            return scores
        return scores.index_fill(1, _index(self.token_ids, scores), NEVER)


@dataclass(frozen=True)
class Situation:
    """What processors need to know: the config, the length of the prompts and that of the longest text."""

    config: GenerationConfig
    prompt_length: int
    max_length: int
    padding: Tensor | None


def _sequence_bias(value: Any, now: Situation) -> SequenceBias:
    pairs = value.items() if isinstance(value, Mapping) else value
    return SequenceBias({tuple(tokens): bias for tokens, bias in pairs})


def _bad_words(words: Sequence[Sequence[int]], now: Situation) -> SequenceBias:
    ends = now.config.eos_token_ids  # a text may always end
    return SequenceBias({tuple(word): NEVER for word in words if len(word) > 1 or word[0] not in ends})


def _min_length(length: int, now: Situation) -> MinLength:
    return MinLength(length, now.config.eos_token_ids)


def _first_suppressed(tokens: Sequence[int], now: Situation) -> Suppress:
    forced = now.prompt_length == 1 and now.config.forced_bos_token_id is not None
    return Suppress(tokens, now.prompt_length + forced)


# The field, the value (None is another) at which it does nothing, what makes the processor; in the order of
# application.
_PROCESSORS: tuple[tuple[str, Any, Callable[[Any, Situation], LogitsProcessor]], ...] = (
    ("sequence_bias", None, _sequence_bias),
    ("repetition_penalty", 1.0, lambda penalty, now: RepetitionPenalty(penalty, now.padding)),
    ("no_repeat_ngram_size", 0, lambda size, now: NoRepeatNGram(size)),
    ("bad_words_ids", None, _bad_words),
    ("min_length", 0, _min_length),
    ("min_new_tokens", 0, lambda new, now: _min_length(now.prompt_length + new, now)),
    ("forced_bos_token_id", None, lambda token, now: Forced([token], 1)),
    ("forced_eos_token_id", None, lambda tokens, now: Forced(as_tokens(tokens), now.max_length - 1)),
    (
        "exponential_decay_length_penalty",
        None,
        lambda pair, now: ExponentialDecay(now.prompt_length + pair[0], pair[1], now.config.eos_token_ids),
    ),
    ("suppress_tokens", None, lambda tokens, now: Suppress(tokens)),
    ("begin_suppress_tokens", None, _first_suppressed),
)


def processors_for(
    config: GenerationConfig, prompt_length: int, max_length: int, padding: Tensor | None = None
) -> list[LogitsProcessor]:
    """Return the processors that apply to every way of decoding, in order.

    Args:
        config: which of them, and their values.
        prompt_length: in tokens.
        max_length: of prompt and continuation, in tokens.
        padding: as in `RepetitionPenalty`.
    """
    now = Situation(config, prompt_length, max_length, padding)
    return [
        make(value, now)
        for field, neutral, make in _PROCESSORS
        if (value := getattr(config, field)) is not None and value != neutral
    ]
