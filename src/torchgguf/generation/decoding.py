"""The decode loop: prompt in, one token a row and step out, the best one or one drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgguf.generation.logits_process import NEVER
from torchgguf.generation.plan import Plan
from torchgguf.generation.sampling import argmax, draw, refuse_forbidden
from torchgguf.generation.stopping import also_ended


@dataclass
class Decoding:
    """Greedy decoding and sampling: each row by itself."""

    plan: Plan
    pad_token_id: int | None = None  # what rows that have ended go on with, while others have not

    def steps(self) -> Iterator[Tensor]:
        """Yield the new token of each row, (batch,); rows that have ended continue with the padding token.

        A caller may stop at any point: the cache then contains all tokens but the last one yielded.
        """
        steps: Callable[[], Iterator[Tensor]] = self.plan.mode()(self._settled_steps)
        return steps()

    def _settled_steps(self) -> Iterator[Tensor]:
        try:
            yield from self._steps()
        finally:
            self.plan.context.settle()

    def _steps(self) -> Iterator[Tensor]:
        plan, context = self.plan, self.plan.context
        logits = context.first_logits()
        ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        for step in range(plan.max_new_tokens):
            if step > 0:
                logits = context.logits()
            token = self._choose(logits)
            if self.pad_token_id is not None:
                token = torch.where(ended, self.pad_token_id, token)
            context.append(token)
            yield token
            if plan.criteria:
                scores = None if plan.record is None else plan.record.scores
                ended = also_ended(ended, plan.criteria, context.input_ids, scores)
                if ended.all():
                    return

    def _choose(self, logits: Tensor) -> Tensor:
        """Return the next token of each row, (batch,)."""
        plan = self.plan
        scores, tokens = logits, None
        for process in plan.processors:
            scores = process(plan.context.input_ids, scores)
        for warp in plan.warpers:
            if tokens is None and (narrowed := warp.narrow(scores)) is not None:
                scores, tokens = narrowed
            else:
                scores = warp(plan.context.input_ids, scores)
        if plan.record is not None:
            whole = scores if tokens is None else torch.full_like(logits, NEVER).scatter(1, tokens, scores)
            plan.record.add(logits=logits, scores=whole, **plan.context.states)
        choice = draw(scores, plan.generator) if plan.do_sample else argmax(scores)
        if plan.processors and not plan.do_sample:
            refuse_forbidden(scores.gather(1, choice[:, None]))
        return choice if tokens is None else tokens.gather(1, choice[:, None]).squeeze(1)
