"""`Context`: the tokens so far, and what the model remembers of them. A model is a `CausalLM` here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from torchgguf.generation.recorded import RecordedSteps
from torchgguf.nn import Cache


class CausalLM(Protocol):
    """What decoding needs of a model.

    Its inputs are `input_ids` (batch, new) or `inputs_embeds` (batch, new, hidden_size), the `cache` of the
    tokens before and, only if rows are padded, `attention_mask` (batch, past + new; with a static cache, all
    that there is room for) and `position_ids` (batch, new). Its output contains `logits`, whose last position
    belongs to the last token, the `cache` with the new tokens and, with `output_hidden_states=True` and the
    like, those too.
    """

    def __call__(self, **inputs: Any) -> Any:
        """Run the model."""

    def get_input_embeddings(self) -> Any:
        """Return the module from tokens to embeddings."""


@dataclass
class Context:
    """Texts that grow by a token at a time, and the model that reads them.

    A text may begin with embeddings that no tokens are known of: `input_ids` then lack these positions.
    """

    model: CausalLM
    input_ids: Tensor  # (batch, length); grows
    padding: Tensor | None  # (batch,) how many tokens at the left of each row are padding; None: no padding
    cache: Cache | None = None
    use_cache: bool = True
    prefill_chunk_size: int | None = None
    repeats: int = 1  # how many continuations of each row
    wanted: tuple[str, ...] = ()  # what else the model shall return: "hidden_states", "attentions"
    embeds: Tensor | None = None  # (batch, prompt, hidden_size) what to read instead of the prompt's tokens
    beside: dict[str, Tensor] = field(default_factory=dict)  # what the caller states of each of its positions
    recorded: RecordedSteps | None = None  # what replays steps of one token; None: the model reads all
    states: dict[str, tuple[Tensor, ...]] = field(init=False, default_factory=dict)  # what it did return
    _seen: int = field(init=False, default=0)  # how many positions the cache holds
    _blank: int = field(init=False)  # how many tokens at the left are padding in all rows
    _flags: dict[str, bool] = field(init=False)
    _ahead: int = field(init=False, default=0)  # how many positions come before the first of `input_ids`

    def __post_init__(self) -> None:
        """Start after the tokens that are in the cache."""
        self._seen = 0 if self.cache is None else self.cache.get_seq_length()
        # Rows are repeated and reordered, but a continuation of each prompt is always among them.
        self._blank = 0 if self.padding is None else int(self.padding.min())
        self._flags = {f"output_{name}": True for name in self.wanted}
        if self.embeds is not None:
            self._ahead = self.embeds.shape[1] - self.input_ids.shape[1]

    @property
    def length(self) -> int:
        """The number of positions of each text."""
        return self._ahead + self.input_ids.shape[1]

    def first_logits(self) -> Tensor:
        """Read the prompts, each once, whatever the number of its continuations.

        Returns:
            As `logits`.

        Raises:
            RuntimeError: the scores are not numbers.
        """
        while (end := self._next_stop()) < self.length:
            self._forward(end)
            if self.cache is not None and not self.cache.holds_for(self.length - self._blank):
                break  # keys depend on the length of the text, so it must be read as a whole
        logits = self.logits()
        if bool(logits.isnan().any()):
            raise RuntimeError("the model's logits are not numbers (NaN)")
        if self.repeats == 1:
            return logits
        rows = torch.arange(len(logits), device=logits.device).repeat_interleave(self.repeats)
        self.select(rows)
        self.states = {name: tuple(x[rows] for x in layers) for name, layers in self.states.items()}
        return logits[rows]

    def _next_stop(self) -> int:
        """Return where the next piece of the prompt ends: by its size, or at a checkpoint of the cache."""
        ends = [self.length]
        if self.prefill_chunk_size is not None:
            ends.append(self._seen + self.prefill_chunk_size)
        every = None if self.cache is None or not self.use_cache else self.cache.checkpoint_every
        # A cache that is empty does not know yet whether its states forget.
        if self.cache is not None and every is not None and (self.cache.forgets or self._seen == 0):
            ends.append((self._seen // every + 1) * every)
        return min(ends)

    def logits(self) -> Tensor:
        """Read the last token; return the scores (batch, vocabulary), float32, of the one after it."""
        if self.recorded is not None and (replayed := self._replayed(self.recorded)) is not None:
            return replayed
        logits: Tensor = self._forward(self.length).logits[:, -1]
        return logits.float()

    def _replayed(self, recorded: RecordedSteps) -> Tensor | None:
        """Return what `logits` does by a recorded step, or None if the model must read the last token."""
        end = self.length
        if self.cache is None or not self.use_cache or self._seen == 0 or end != self._seen + 1:
            return None
        if not self.cache.holds_for(end - self._blank):
            return None
        logits = recorded.logits(self.cache, self._seen, self._step_inputs)
        if logits is not None:
            self._seen = end
            self._checkpoint(self.cache)
        return logits

    def _step_inputs(self, capacity: int) -> dict[str, Tensor]:
        """Return what a recorded step reads: the last token, and what is stated of its position."""
        end = self.length
        inputs = {"input_ids": self.input_ids[:, -1:]}
        if self.padding is not None:
            place = torch.arange(capacity, device=self.padding.device)
            inputs["attention_mask"] = (place >= self.padding[:, None]).long()
            inputs["position_ids"] = end - 1 - self.padding[:, None]
        return inputs | {name: _extended(x, end, name)[:, -1:] for name, x in self.beside.items()}

    def append(self, token: Tensor) -> None:
        """Append a token to each row, (batch,)."""
        self.input_ids = torch.cat((self.input_ids, token[:, None]), dim=1)

    def select(self, rows: Tensor) -> None:
        """Continue with these rows, (batch,), of those so far."""
        self.input_ids = self.input_ids[rows]
        self.padding = None if self.padding is None else self.padding[rows]
        self.embeds = None if self.embeds is None else self.embeds[rows]
        self.beside = {name: x if len(x) == 1 else x[rows] for name, x in self.beside.items()}
        if self.cache is not None:
            self.cache.reorder_cache(rows)

    def settle(self) -> None:
        """Leave nothing in the cache that was not chosen."""

    def _forward(self, end: int, scored: int = 1) -> Any:
        """Run the model up to position `end`, from where the cache ends; score the last positions."""
        if self.cache is not None and not self.cache.holds_for(end - self._blank):
            self.cache.crop(0)
            self._seen = 0
        inputs: dict[str, Any] = {} if self.padding is None else self._layout(self.padding, end)
        inputs |= {name: _extended(x, end, name)[:, self._seen :] for name, x in self.beside.items()}
        output = self.model(
            **self._read(self._seen, end),
            cache=self.cache,
            use_cache=self.use_cache,
            logits_to_keep=scored,
            **inputs,
            **self._flags,
        )
        if self.use_cache:
            self.cache, self._seen = output.cache, end
            self._checkpoint(output.cache)
        if self.wanted:
            self.states = {name: getattr(output, name) for name in self.wanted}
        return output

    def _checkpoint(self, cache: Cache) -> None:
        if cache.checkpoint_every is not None and self._seen % cache.checkpoint_every == 0:
            cache.checkpoint()

    def _read(self, start: int, end: int) -> dict[str, Tensor]:
        """Return what the model reads at these positions: tokens, or embeddings where there are some."""
        known = 0 if self.embeds is None else self.embeds.shape[1]
        if self.embeds is None or start >= known:
            return {"input_ids": self.input_ids[:, start - self._ahead : end - self._ahead]}
        embeds = self.embeds[:, start:end]
        if end > known:
            new = self.input_ids[:, known - self._ahead : end - self._ahead]
            embeds = torch.cat((embeds, self.model.get_input_embeddings()(new)), dim=1)
        return {"inputs_embeds": embeds}

    def _layout(self, padding: Tensor, end: int) -> dict[str, Tensor]:
        """Return the mask of tokens to look at, and the positions of the new ones."""
        # A compiled model is compiled again for a mask of another shape.
        length = end if self.cache is None else self.cache.capacity or end
        place, start = torch.arange(max(length, end), device=padding.device), padding[:, None]
        return {
            "attention_mask": (place[:length] >= start).long(),
            "position_ids": (place[self._seen : end] - start).clamp(min=0),
        }


def _extended(x: Tensor, end: int, name: str) -> Tensor:
    """Return what is stated of positions, (batch or 1, prompt), for the first `end` ones.

    Positions count on, other values stay those of the last position.
    """
    if (new := end - x.shape[1]) <= 0:
        return x[:, :end]
    steps = torch.arange(1, new + 1, device=x.device) if name == "position_ids" else x.new_zeros(new)
    return torch.cat((x, x[:, -1:] + steps), dim=1)


def align_left(prompts: Tensor, attention_mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Move the padding of each row to its left, so that all rows end in a real token.

    To a causal model this makes no difference: tokens keep their order, and the mask their positions.

    Args:
        prompts: (batch, length, ...).
        attention_mask: (batch, length), 0 at padding.

    Returns:
        The new order of each row's positions (batch, length), and how many of each are padding (batch,):
        both None, if there is no padding.

    Raises:
        ValueError: the mask has another shape, or leaves a row without a token.
    """
    if attention_mask is None:
        return None, None
    if attention_mask.shape != prompts.shape[:2]:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {tuple(prompts.shape[:2])}"
        )
    mask = attention_mask.to(prompts.device).ne(0)
    empty = (~mask.any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"attention_mask leaves no token in row {', '.join(map(str, empty))}")
    if bool(mask.all()):
        return None, None
    return mask.int().argsort(dim=1, stable=True), (~mask).sum(1)
