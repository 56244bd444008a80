"""The decode loop: prompt in, one token a row and step out. Knows of a model only `CausalLM`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from torchgguf.generation.logits_process import LogitsProcessor, Processor
from torchgguf.generation.sampling import argmax, draw
from torchgguf.generation.stopping import Criterion


class CausalLM(Protocol):
    """What the loop asks of a model.

    Called with `input_ids` (batch, new), the `past_key_values` of the tokens before and, only if rows are
    padded, `attention_mask` (batch, past + new) and `position_ids` (batch, new); returns `.logits`, whose
    last position belongs to the last token, and the grown `.past_key_values`.
    """

    def __call__(self, input_ids: Tensor, /, **inputs: Any) -> Any:
        """Run the model."""


@dataclass
class Decoding:
    """One run of the loop: the tokens so far, what the model remembers of them and how to choose the next."""

    model: CausalLM
    input_ids: Tensor  # (batch, length); grows
    attention_mask: Tensor | None  # (batch, length) 0 at padding, all of it on the left; None: no padding
    max_new_tokens: int
    pad_token_id: int | None = None
    processors: Sequence[Processor] = ()
    warpers: Sequence[LogitsProcessor] | None = None  # None: greedy
    criteria: Sequence[Criterion] = ()
    generator: torch.Generator | None = None
    cache: Any = None
    use_cache: bool = True
    prefill_chunk_size: int | None = None
    repeats: int = 1  # how many continuations of each row, drawn apart
    _seen: int = field(init=False, default=0)  # how many tokens the cache holds

    def __post_init__(self) -> None:
        """Start after what a given cache holds."""
        self._seen = 0 if self.cache is None else self.cache.get_seq_length()

    def steps(self) -> Iterator[Tensor]:
        """Yield the new token of each row, (batch,); a row that has ended goes on with the padding token.

        May be left at any point: then `cache` holds all tokens but the last one yielded.
        """
        # A cache from outside will be written to outside, which inference mode's tensors do not allow.
        mode = torch.inference_mode if self.cache is None else torch.no_grad
        steps: Callable[[], Iterator[Tensor]] = mode()(self._steps)
        return steps()

    def _steps(self) -> Iterator[Tensor]:
        scores = self._first_scores()
        running = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        for step in range(self.max_new_tokens):
            if step > 0:
                scores = self._scores()
            for process in self.processors:
                scores = process(self.input_ids, scores)
            token = self._choose(scores)
            if self.pad_token_id is not None:
                token = torch.where(running, token, self.pad_token_id)
            self._append(token)
            yield token
            for done in self.criteria:
                running = running & ~done(self.input_ids, scores)
            if not running.any():
                return

    def _first_scores(self) -> Tensor:
        """Read the prompts, once each however many continuations they get."""
        if self.prefill_chunk_size is not None:
            while self.input_ids.shape[1] - self._seen > self.prefill_chunk_size:
                self._forward(self._seen + self.prefill_chunk_size)
        scores = self._scores()
        if bool(scores.isnan().any()):
            raise RuntimeError("the model's logits are not numbers (NaN)")
        if self.repeats == 1:
            return scores
        rows = torch.arange(len(scores), device=scores.device).repeat_interleave(self.repeats)
        self.input_ids = self.input_ids[rows]
        self.attention_mask = None if self.attention_mask is None else self.attention_mask[rows]
        if self.use_cache:
            self.cache.reorder_cache(rows)
        return scores[rows]

    def _scores(self) -> Tensor:
        """Scores (batch, vocabulary), float32, of the token after the last one."""
        logits: Tensor = self._forward(self.input_ids.shape[1]).logits[:, -1]
        return logits.float()

    def _forward(self, end: int) -> Any:
        """Run the model up to token `end`, from where the cache ends."""
        inputs: dict[str, Any] = {}
        if self.attention_mask is not None:
            mask = self.attention_mask[:, :end]
            inputs["attention_mask"] = mask
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, self._seen :]
        output = self.model(
            self.input_ids[:, self._seen : end],
            past_key_values=self.cache,
            use_cache=self.use_cache,
            logits_to_keep=1,
            **inputs,
        )
        if self.use_cache:
            self.cache, self._seen = output.past_key_values, end
        return output

    def _choose(self, scores: Tensor) -> Tensor:
        """The next token of each row, (batch,)."""
        if self.warpers is None:
            return argmax(scores)
        tokens = None
        for warp in self.warpers:
            if tokens is None and (narrowed := warp.narrow(scores)) is not None:
                scores, tokens = narrowed
            else:
                scores = warp(self.input_ids, scores)
        choice = draw(scores, self.generator)
        return choice if tokens is None else tokens.gather(1, choice[:, None]).squeeze(1)

    def _append(self, token: Tensor) -> None:
        self.input_ids = torch.cat((self.input_ids, token[:, None]), dim=1)
        if self.attention_mask is not None:
            one = self.attention_mask.new_ones(len(token), 1)
            self.attention_mask = torch.cat((self.attention_mask, one), dim=1)


def align_left(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Move the padding of each row to its left, so that all rows end in a real token; no padding, no mask.

    A causal model cannot tell: tokens keep their order and get their positions from the mask.
    Raises `ValueError` for a mask that does not fit or that leaves a row empty.
    """
    if attention_mask is None:
        return input_ids, None
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}"
        )
    mask = attention_mask.to(input_ids.device).ne(0)
    empty = (~mask.any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"attention_mask leaves no token in row {', '.join(map(str, empty))}")
    if bool(mask.all()):
        return input_ids, None
    order = mask.int().argsort(dim=1, stable=True)
    return input_ids.gather(1, order), mask.gather(1, order).long()
