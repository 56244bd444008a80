"""Beam search: of each prompt several texts compete, and the likeliest ones that end win.

The rules, down to the constants and to the order of additions, are those of transformers, so that the same
scores choose the same tokens. Shape letters: B prompts, K beams of each, M candidates for the next K.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.generation.logits_process import Processor
from torchgguf.generation.plan import Plan
from torchgguf.generation.stopping import also_ended

# Added to the scores of what must lose. Finite, as even such a beam goes on where there is no better one.
LOST = -1e9


@dataclass(frozen=True)
class Beams:
    """Some texts of each prompt, (B, n)."""

    tokens: Tensor  # (B, n, length)
    rows: Tensor  # (B, n, new) the row of the batch that each new token was chosen from; -1: there is none
    scores: Tensor  # (B, n)
    ended: Tensor  # (B, n) bool

    def take(self, index: Tensor) -> Beams:
        """Return the texts at `index`, (B, m)."""
        tokens, rows = (x.take_along_dim(index[..., None], 1) for x in (self.tokens, self.rows))
        return Beams(tokens, rows, self.scores.gather(1, index), self.ended.gather(1, index))

    def best(self, n: int) -> Beams:
        """Return the `n` texts with the highest scores, best first."""
        return self.take(self.scores.topk(n).indices)

    def grown(self, token: Tensor, row: Tensor) -> Beams:
        """Append a token to each text, and the row from which it was chosen, both (B, n)."""
        tokens = torch.cat((self.tokens, token[..., None]), dim=2)
        return replace(self, tokens=tokens, rows=torch.cat((self.rows, row[..., None]), dim=2))

    def padded(self, token: int) -> Beams:
        """Append the same token to each text, as filling."""
        return replace(
            self, tokens=F.pad(self.tokens, (0, 1), value=token), rows=F.pad(self.rows, (0, 1), value=-1)
        )

    def joined(self, others: Beams) -> Beams:
        """Put others, as long as these, behind them."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return Beams(*(torch.cat(pair, dim=1) for pair in pairs))


@dataclass
class BeamSearch:
    """Beam search, and with `do_sample` beam sampling; the context repeats each prompt `num_beams` times."""

    plan: Plan
    num_beams: int
    num_return_sequences: int
    length_penalty: float
    early_stopping: bool | str
    fill: int  # what texts are filled up with after their end
    candidates: int  # M: so many that K of them go on even if as many as can have just ended

    def search(self) -> Beams:
        """Return what follows each prompt in the `num_return_sequences` best texts, best first."""
        start = self.plan.context.input_ids.shape[1]
        with self.plan.mode():
            tokens, rows, scores, ended = (
                value[:, : self.num_return_sequences]
                for value in vars(self._allowed(self._search())).values()
            )
        new = int((rows >= 0).sum(-1).max())
        return Beams(tokens[..., start : start + new], rows[..., :new], scores, ended)

    def _allowed(self, finished: Beams) -> Beams:
        """Return the texts, the best one in place of those that only a lost beam or a forbidden token made.

        Raises:
            RuntimeError: the best one of a prompt is made so too.
        """
        if bool((~finished.ended[:, 0] | (finished.scores[:, 0] == float("-inf"))).any()):
            raise RuntimeError("there is no token to choose: the logits processors forbid all")
        lost = finished.scores < LOST / 1e4
        if bool(lost[:, : self.num_return_sequences].any()):
            warnings.warn("there are fewer texts than num_return_sequences: some are repeated", stacklevel=6)
        place = torch.arange(lost.shape[1], device=lost.device)
        return replace(finished.take(place * ~lost), scores=finished.scores)

    def _search(self) -> Beams:
        context = self.plan.context
        logits = context.first_logits()
        running = self._start(logits)
        finished = replace(running, scores=torch.full_like(running.scores, LOST))
        hope = torch.ones_like(running.ended[:, :1])  # whether a prompt's running texts may still win
        for new in range(1, self.plan.max_new_tokens + 1):
            candidates = self._continued(running, logits, last=new == self.plan.max_new_tokens)
            goes_on = candidates.scores + candidates.ended * LOST
            running = replace(candidates, scores=goes_on).best(self.num_beams)
            finished = self._finished(finished, candidates, hope, new)
            context.select(running.rows[..., -1].flatten())
            context.append(running.tokens[..., -1].flatten())
            hope = hope & self._may_win(running, finished, new)
            full = self.early_stopping is True and bool(finished.ended.all())
            if full or not hope.any() or candidates.ended.all():
                break
            logits = context.logits()
        return finished

    def _start(self, logits: Tensor) -> Beams:
        """Return K copies of each prompt, of which only the first counts: else all would continue alike."""
        ids = self.plan.context.input_ids
        tokens = ids.view(len(ids) // self.num_beams, self.num_beams, ids.shape[1])
        scores = logits.new_zeros(tokens.shape[:2])
        scores[:, 1:] = LOST
        return Beams(tokens, tokens[..., :0], scores, torch.zeros_like(scores, dtype=torch.bool))

    def _continued(self, running: Beams, logits: Tensor, last: bool) -> Beams:
        """Return M ways to continue the beams of each prompt by one token."""
        scores = logits.log_softmax(-1)
        processors: list[Processor] = [*self.plan.processors, *self.plan.warpers]
        for process in processors:
            scores = process(self.plan.context.input_ids, scores)
        so_far = None
        if self.plan.record is not None:
            self.plan.record.add(logits=logits, scores=scores, **self.plan.context.states)
            so_far = self.plan.record.scores

        batch, vocabulary = len(running.scores), scores.shape[-1]
        total = (scores.view(batch, self.num_beams, -1) + running.scores[..., None]).flatten(1)
        if self.plan.do_sample:
            drawn = total.softmax(-1).multinomial(self.candidates, generator=self.plan.generator)
            # Best first, as `topk` below: the order of drawing must not decide which of them may win.
            chosen = drawn.gather(1, total.gather(1, drawn).sort(dim=-1, descending=True).indices)
        else:
            chosen = total.topk(self.candidates).indices
        beam, token = chosen // vocabulary, chosen % vocabulary
        first_row = torch.arange(batch, device=beam.device)[:, None] * self.num_beams
        texts = running.take(beam).grown(token, first_row + beam)
        ended = torch.full((token.numel(),), last, device=token.device)
        ended = also_ended(ended, self.plan.criteria, texts.tokens.flatten(0, 1), so_far)
        return replace(texts, scores=total.gather(1, chosen), ended=ended.view_as(token))

    def _finished(self, finished: Beams, candidates: Beams, hope: Tensor, new: int) -> Beams:
        """Return the K best of the texts that ended before or now, `new` tokens after the prompt."""
        # The candidates after the first K are there to go on, not to win.
        place = torch.arange(self.candidates, device=hope.device)
        ended = candidates.ended & (place < self.num_beams)
        closed = finished.ended.all(-1, keepdim=True) & (self.early_stopping is True)
        scores = candidates.scores / new**self.length_penalty
        for lost in (closed, ~hope, ~ended):
            scores = scores + lost * LOST
        ended_now = replace(candidates, scores=scores, ended=ended)
        return finished.padded(self.fill).joined(ended_now).best(self.num_beams)

    def _may_win(self, running: Beams, finished: Beams, new: int) -> Tensor:
        """Return whether a prompt's best running text could, at a guessed length, beat one that ended."""
        patient = self.early_stopping == "never" and self.length_penalty > 0
        length = self.plan.max_new_tokens if patient else new
        attainable: Tensor = running.scores[:, :1] / length**self.length_penalty
        worst = finished.scores.amin(1, keepdim=True).where(finished.ended, LOST)
        return (attainable > worst).any(1, keepdim=True)
