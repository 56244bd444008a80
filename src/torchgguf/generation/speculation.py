"""Speculation: the model reads tokens before they are chosen.

A drafter guesses the next token. The model reads it together with the last one, and so scores two tokens at
once. If the token that is chosen then is the guess, the next scores are there already. If not, the cache goes
back. What is chosen, and how, never depends on guesses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from torchgguf.generation.context import Context

# Tokens that are read anew after wrong guesses: beyond so many they are read without another guess.
_MOST_PENDING = 4


class Drafter(Protocol):
    """Guesses tokens by the last states of a model."""

    def guess(self, states: Tensor, tokens: Tensor, start: int) -> Tensor:
        """Return the token `(1, 1)` that may follow.

        Args:
            states: of the model, after its last norm, at positions that were not given before, `(1, N, H)`.
            tokens: those after each of these positions, `(1, N)`.
            start: the first of these positions.
        """


@dataclass
class SpeculativeContext(Context):
    """A context of one text whose model may read a guess beside the last token.

    Attributes:
        drafter: guesses.
        forwards: how often the model ran.
    """

    drafter: Drafter = field(kw_only=True)
    forwards: int = field(init=False, default=0)
    _guess: Tensor | None = field(init=False, default=None)  # the token that was read, but not chosen yet
    _before: tuple[int, Any] = field(init=False, default=(0, None))  # the cache before it: length, copies
    _scores: Tensor | None = field(init=False, default=None)  # after the guess
    _states: Tensor | None = field(init=False, default=None)  # from position `_given` on
    _given: int = field(init=False)  # how many positions the drafter knows

    def __post_init__(self) -> None:
        """Start after the tokens that are in the cache: the drafter never learns of them."""
        super().__post_init__()
        self._given = self._seen

    def logits(self) -> Tensor:
        """Return the scores `(1, vocabulary)`, float32, of the token after the last one."""
        if self._guess is not None:
            right = bool((self.input_ids[:, -1:] == self._guess).all())
            if right and self._scores is not None:
                scores, self._guess = self._scores, None
                return scores
            self.settle()
        pending = self.length - self._seen
        if self._states is None or self.cache is None or pending > _MOST_PENDING:
            return super().logits()
        if (
            self._given + self._states.shape[1] < self.length - 1
        ):  # the last piece of a prompt is not read yet
            return super().logits()
        self._guess = self._draft()
        self._before = self._seen, self.cache.snapshot()
        chosen, self.input_ids = self.input_ids, torch.cat((self.input_ids, self._guess), dim=1)
        try:
            output = self._forward(self.length, scored=2)
        finally:
            self.input_ids = chosen
        logits: Tensor = output.logits.float()
        self._scores = logits[:, 1]
        return logits[:, 0]

    def settle(self) -> None:
        """Take the cache back to what was chosen."""
        if self._guess is not None and self.cache is not None:
            self._seen, snapshots = self._before
            self.cache.restore(snapshots, self._seen)
        self._guess = None

    def _draft(self) -> Tensor:
        assert self._states is not None
        given, known = self._given, self.length - 1
        states = self._states[:, : known - given]
        tokens = self.input_ids[:, given + 1 - self._ahead : known + 1 - self._ahead]
        self._given, self._states = known, self._states[:, known - given :]
        return self.drafter.guess(states, tokens, given)

    def _forward(self, end: int, scored: int = 1) -> Any:
        """Run the model up to position `end`, and keep its last states."""
        start, seen = self._seen, list[Tensor]()
        base = self.model.base_model  # type: ignore[attr-defined]

        def keep(module: Any, arguments: Any, output: Any) -> None:
            seen.append(output.last_hidden_state)

        handle = base.register_forward_hook(keep)
        try:
            output = super()._forward(end, scored)
        finally:
            handle.remove()
        self.forwards += 1
        start = end - seen[0].shape[1]
        fresh = seen[0][:, max(0, self._given - start) :]
        older = None if self._states is None else self._states[:, : max(0, start - self._given)]
        self._states = fresh if older is None else torch.cat((older, fresh), dim=1)
        return output
