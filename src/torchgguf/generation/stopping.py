"""Stopping criteria: each decides of every row whether the last token ends it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.logits_process import Tokens, token_list
from torchgguf.generation.ranges import stop_texts
from torchgguf.generation.streamers import UNFINISHED, Decoder

Scores = tuple[Tensor, ...] | None
Criterion = Callable[[Tensor, Scores], Tensor | bool]
"""`(input_ids (batch, length), scores) -> done (batch,) bool, or one bool for all`.

The scores are those of each step so far, (batch, vocabulary), if `output_scores` asks for them, else None.
"""


def also_ended(ended: Tensor, criteria: Sequence[Criterion], input_ids: Tensor, scores: Scores) -> Tensor:
    """Return which rows have ended before, or end by any of the criteria: (batch,) bool."""
    for criterion in criteria:
        ended = ended | criterion(input_ids, scores)
    return ended


class StoppingCriteria:
    """Base class of the criteria."""

    def __call__(self, input_ids: Tensor, scores: Scores = None, **arguments: Any) -> Tensor | bool:
        """Return which rows end; see `Criterion`.

        Args:
            input_ids: the tokens so far, (batch, length).
            scores: those of each step, (batch, vocabulary), if `output_scores` asks for them, else None.
            arguments: more arguments, for criteria that declare any.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(input_ids, scores)")


class StoppingCriteriaList(list[Any]):
    """A list of criteria, which is a criterion too: it ends the rows that one of them ends."""

    def __call__(self, input_ids: Tensor, scores: Scores = None, **arguments: Any) -> Tensor:
        """Return which rows end, (batch,) bool; see `StoppingCriteria`."""
        ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for criterion in self:
            ended = ended | criterion(input_ids, scores, **arguments)
        return ended

    @property
    def max_length(self) -> int | None:
        """The length at which the first `MaxLengthCriteria` ends every row."""
        return next((each.max_length for each in self if isinstance(each, MaxLengthCriteria)), None)


class MaxLengthCriteria(StoppingCriteria):
    """Ends every row at `max_length` tokens, the prompt included.

    Args:
        max_length: in tokens.
        max_position_embeddings: the context of the model: a longer text is warned about, once.
    """

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length = max_length
        self.max_position_embeddings = max_position_embeddings

    def __call__(self, input_ids: Tensor, scores: Scores = None, **arguments: Any) -> Tensor:
        """Return which rows end; see `Criterion`."""
        length, limit = input_ids.shape[1], self.max_position_embeddings
        done = length >= self.max_length
        if limit is not None and not done and length > limit:
            warnings.warn(f"the text is longer than the model's context, which is {limit}", stacklevel=2)
        return torch.full((len(input_ids),), done, device=input_ids.device)


class MaxTimeCriteria(StoppingCriteria):
    """Ends every row `max_time` seconds after `initial_timestamp`, of `time.time()`; by default after now."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Tensor, scores: Scores = None, **arguments: Any) -> Tensor:
        """Return which rows end; see `Criterion`."""
        done = time.time() - self.initial_timestamp > self.max_time
        return torch.full((len(input_ids),), done, device=input_ids.device)


class EosTokenCriteria(StoppingCriteria):
    """Ends a row whose last token is one of these.

    Args:
        eos_token_id: a token or several.
    """

    def __init__(self, eos_token_id: Tokens) -> None:
        self.eos_token_id = torch.tensor(token_list(eos_token_id))

    def __call__(self, input_ids: Tensor, scores: Scores = None, **arguments: Any) -> Tensor:
        """Return which rows end; see `Criterion`."""
        self.eos_token_id = self.eos_token_id.to(input_ids.device)
        return (input_ids[:, -1:] == self.eos_token_id).any(1)


class StopStringCriteria(StoppingCriteria):
    """Ends a row whose last token completes one of `stop_strings`, wherever token boundaries fall.

    The string may begin before the last token, even in the prompt, and the token may go on after it; a
    string that was complete before the token does not count.
    """

    def __init__(self, tokenizer: Decoder, stop_strings: str | Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = stop_texts(stop_strings)
        # A token spells a byte or more; two to spare, as tokenizers may treat the first differently.
        self._reach = max((len(stop.encode()) for stop in self.stop_strings), default=0) + 2

    def _completes(self, token_ids: list[int]) -> bool:
        decode = self.tokenizer.decode
        # The tail may begin inside a character, and its last token may end one that began before: only whole
        # characters are compared.
        while (text := decode(token_ids)).startswith(UNFINISHED):
            token_ids = token_ids[1:]
        earlier = token_ids[:-1]
        while (before := decode(earlier)).endswith(UNFINISHED):
            earlier = earlier[:-1]
        return any(text.find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in self.stop_strings)

    def __call__(self, input_ids: Tensor, scores: Scores = None, **arguments: Any) -> Tensor:
        """Return which rows end; see `Criterion`."""
        tails = input_ids[:, -self._reach :].tolist()
        return torch.tensor([self._completes(tail) for tail in tails], device=input_ids.device)
