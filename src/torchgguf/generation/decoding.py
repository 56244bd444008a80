"""The decode loop: prompt in, one token a row and step out, the best one or one drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.context import Context
from torchgguf.generation.logits_process import NEVER, LogitsProcessor, Processor
from torchgguf.generation.outputs import Record
from torchgguf.generation.sampling import argmax, draw
from torchgguf.generation.stopping import Criterion, also_ended


@dataclass(kw_only=True)
class Strategy:
    """A way to choose tokens, and what all ways have in common."""

    context: Context
    max_new_tokens: int
    pad_token_id: int | None = None  # what rows that have ended go on with, while others have not
    processors: Sequence[Processor] = ()
    warpers: Sequence[LogitsProcessor] = ()
    do_sample: bool = False
    criteria: Sequence[Criterion] = ()
    generator: torch.Generator | None = None
    record: Record | None = None
    lasting: bool = False  # whether something outside keeps what is made, which inference mode does not allow

    @property
    def mode(self) -> Any:
        """Makes the mode to run in."""
        return torch.no_grad if self.lasting else torch.inference_mode


@dataclass(kw_only=True)
class Decoding(Strategy):
    """Greedy decoding and sampling: each row by itself."""

    def steps(self) -> Iterator[Tensor]:
        """Yield the new token of each row, (batch,); a row that has ended goes on with the padding token.

        May be left at any point: then the cache holds all tokens but the last one yielded.
        """
        steps: Callable[[], Iterator[Tensor]] = self.mode()(self._steps)
        return steps()

    def _steps(self) -> Iterator[Tensor]:
        context = self.context
        logits = context.first_logits()
        ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        for step in range(self.max_new_tokens):
            if step > 0:
                logits = context.logits()
            token = self._choose(logits)
            if self.pad_token_id is not None:
                token = torch.where(ended, self.pad_token_id, token)
            context.append(token)
            yield token
            if self.criteria:
                scores = None if self.record is None else self.record.scores
                ended = also_ended(ended, self.criteria, context.input_ids, scores)
                if ended.all():
                    return

    def _choose(self, logits: Tensor) -> Tensor:
        """The next token of each row, (batch,)."""
        scores, tokens = logits, None
        for process in self.processors:
            scores = process(self.context.input_ids, scores)
        for warp in self.warpers:
            if tokens is None and (narrowed := warp.narrow(scores)) is not None:
                scores, tokens = narrowed
            else:
                scores = warp(self.context.input_ids, scores)
        if self.record is not None:
            whole = scores if tokens is None else torch.full_like(logits, NEVER).scatter(1, tokens, scores)
            self.record.add(logits=logits, scores=whole, **self.context.states)
        choice = draw(scores, self.generator) if self.do_sample else argmax(scores)
        return choice if tokens is None else tokens.gather(1, choice[:, None]).squeeze(1)
