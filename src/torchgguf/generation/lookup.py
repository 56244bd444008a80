"""Speculation by the text itself (Saxena 2023, prompt lookup decoding): what followed the same words before.

The model reads a guess of several tokens beside the last one. Tokens are chosen from its scores one by one as
ever; as long as they are the guessed ones, the next scores are there already.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchgguf.generation.context import Context


@dataclass
class LookupContext(Context):
    """A context of one text whose model may read tokens that followed the same words earlier in it.

    Attributes:
        num_tokens: the highest number of tokens to guess.
        max_ngram: the highest number of last tokens that are looked for.
        forwards: how often the model ran.
    """

    num_tokens: int = field(kw_only=True)
    max_ngram: int = field(kw_only=True)
    forwards: int = field(init=False, default=0)
    _guess: Tensor | None = field(init=False, default=None)  # tokens that were read, (1, N)
    _scores: Tensor | None = field(init=False, default=None)  # before and after each of them, (1, N + 1, V)
    _right: int = field(init=False, default=0)  # how many of them were chosen

    def logits(self) -> Tensor:
        """Return the scores `(1, vocabulary)`, float32, of the token after the last one."""
        if self._guess is not None and self._scores is not None:
            place = self._right
            if place < self._guess.shape[1] and bool((self.input_ids[:, -1] == self._guess[:, place]).all()):
                self._right += 1
                return self._scores[:, self._right]
            self.settle()
        self.forwards += 1
        # Wrong guesses must be forgotten, which states that forget what they were cannot.
        may_guess = self.cache is not None and not self.cache.forgets and self.length - self._seen == 1
        guess = self._look_up() if may_guess else None
        if guess is None:
            return super().logits()
        chosen, self.input_ids = self.input_ids, torch.cat((self.input_ids, guess), dim=1)
        try:
            output = self._forward(self.length, scored=1 + guess.shape[1])
        finally:
            self.input_ids = chosen
        scores: Tensor = output.logits.float()
        self._guess, self._scores, self._right = guess, scores, 0
        return scores[:, 0]

    def settle(self) -> None:
        """Take the cache back to what was chosen, without the last token, which is not read yet."""
        if self._guess is not None and self.cache is not None:
            self._seen = min(self._seen, self.length - 1)
            self.cache.crop(self._seen)
        self._guess = self._scores = None

    def _look_up(self) -> Tensor | None:
        """Return what followed the last tokens where they were before, the longest match first; or None."""
        tokens = self.input_ids[0]
        for size in range(min(self.max_ngram, len(tokens) - 1), 0, -1):
            windows = tokens[:-1].unfold(0, size, 1)
            found = (windows == tokens[-size:]).all(1).nonzero()
            if len(found):
                start = int(found[0]) + size
                return tokens[None, start : start + self.num_tokens]
        return None
