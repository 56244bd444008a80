"""Stopping criteria: each decides of every row whether the last token ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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


class MaxLengthCriteria:
    """Ends every row at `max_length` tokens, the prompt included."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def __call__(self, input_ids: Tensor, scores: Scores = None) -> Tensor:
        """Return which rows end; see `Criterion`."""
        done = input_ids.shape[1] >= self.max_length
        return torch.full((len(input_ids),), done, device=input_ids.device)


class MaxTimeCriteria:
    """Ends every row `max_time` seconds after `initial_timestamp`, of `time.time()`; by default after now."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.end = max_time + (time.time() if initial_timestamp is None else initial_timestamp)

    def __call__(self, input_ids: Tensor, scores: Scores = None) -> Tensor:
        """Return which rows end; see `Criterion`."""
        return torch.full((len(input_ids),), time.time() > self.end, device=input_ids.device)


class EosTokenCriteria:
    """Ends a row whose last token is one of `eos_token_ids`."""

    def __init__(self, eos_token_ids: Sequence[int]) -> None:
        self.eos_token_ids = torch.tensor(eos_token_ids)

    def __call__(self, input_ids: Tensor, scores: Scores = None) -> Tensor:
        """Return which rows end; see `Criterion`."""
        self.eos_token_ids = self.eos_token_ids.to(input_ids.device)
        return (input_ids[:, -1:] == self.eos_token_ids).any(1)


class StopStringCriteria:
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

    def __call__(self, input_ids: Tensor, scores: Scores = None) -> Tensor:
        """Return which rows end; see `Criterion`."""
        tails = input_ids[:, -self._reach :].tolist()
        return torch.tensor([self._completes(tail) for tail in tails], device=input_ids.device)
