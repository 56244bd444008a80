"""`Context`: the tokens so far, and what the model remembers of them. A model is a `CausalLM` here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from torchgguf.nn import Cache


class CausalLM(Protocol):
    """What decoding needs of a model.

    Its inputs are `input_ids` (batch, new), the `cache` of the tokens before and, only if rows are padded,
    `attention_mask` (batch, past + new; with a static cache, all that there is room for) and `position_ids`
    (batch, new). Its output contains `logits`, whose last position belongs to the last token, the `cache`
    with the new tokens and, with `output_hidden_states=True` and the like, those too.
    """

    def __call__(self, input_ids: Tensor, /, **inputs: Any) -> Any:
        """Run the model."""


@dataclass
class Context:
    """Texts that grow by a token at a time, and the model that reads them."""

    model: CausalLM
    input_ids: Tensor  # (batch, length); grows
    padding: Tensor | None  # (batch,) how many tokens at the left of each row are padding; None: no padding
    cache: Cache | None = None
    use_cache: bool = True
    prefill_chunk_size: int | None = None
    repeats: int = 1  # how many continuations of each row
    wanted: tuple[str, ...] = ()  # what else the model shall return: "hidden_states", "attentions"
    states: dict[str, tuple[Tensor, ...]] = field(init=False, default_factory=dict)  # what it did return
    _seen: int = field(init=False, default=0)  # how many tokens the cache holds
    _blank: int = field(init=False)  # how many tokens at the left are padding in all rows
    _flags: dict[str, bool] = field(init=False)

    def __post_init__(self) -> None:
        """Start after the tokens that are in the cache."""
        self._seen = 0 if self.cache is None else self.cache.get_seq_length()
        # Rows are repeated and reordered, but a continuation of each prompt is always among them.
        self._blank = 0 if self.padding is None else int(self.padding.min())
        self._flags = {f"output_{name}": True for name in self.wanted}

    def first_logits(self) -> Tensor:
        """Read the prompts, each once, whatever the number of its continuations.

        Returns:
            As `logits`.

        Raises:
            RuntimeError: the scores are not numbers.
        """
        if self.prefill_chunk_size is not None:
            while self.input_ids.shape[1] - self._seen > self.prefill_chunk_size:
                self._forward(self._seen + self.prefill_chunk_size)
        logits = self.logits()
        if bool(logits.isnan().any()):
            raise RuntimeError("the model's logits are not numbers (NaN)")
        if self.repeats == 1:
            return logits
        rows = torch.arange(len(logits), device=logits.device).repeat_interleave(self.repeats)
        self.select(rows)
        self.states = {name: tuple(x[rows] for x in layers) for name, layers in self.states.items()}
        return logits[rows]

    def logits(self) -> Tensor:
        """Read the last token; return the scores (batch, vocabulary), float32, of the one after it."""
        logits: Tensor = self._forward(self.input_ids.shape[1]).logits[:, -1]
        return logits.float()

    def append(self, token: Tensor) -> None:
        """Append a token to each row, (batch,)."""
        self.input_ids = torch.cat((self.input_ids, token[:, None]), dim=1)

    def select(self, rows: Tensor) -> None:
        """Continue with these rows, (batch,), of those so far."""
        self.input_ids = self.input_ids[rows]
        self.padding = None if self.padding is None else self.padding[rows]
        if self.cache is not None:
            self.cache.reorder_cache(rows)

    def _forward(self, end: int) -> Any:
        """Run the model up to token `end`, from where the cache ends."""
        if self.cache is not None and not self.cache.holds_for(end - self._blank):
            self.cache.crop(0)
            self._seen = 0
        inputs: dict[str, Any] = {} if self.padding is None else self._layout(self.padding, end)
        output = self.model(
            self.input_ids[:, self._seen : end],
            cache=self.cache,
            use_cache=self.use_cache,
            logits_to_keep=1,
            **inputs,
            **self._flags,
        )
        if self.use_cache:
            self.cache, self._seen = output.cache, end
        if self.wanted:
            self.states = {name: getattr(output, name) for name in self.wanted}
        return output

    def _layout(self, padding: Tensor, end: int) -> dict[str, Tensor]:
        """Return the mask of tokens to look at, and the positions of the new ones."""
        # A compiled model is compiled again for a mask of another shape.
        length = end if self.cache is None else self.cache.capacity or end
        place, start = torch.arange(max(length, end), device=padding.device), padding[:, None]
        return {
            "attention_mask": (place[:length] >= start).long(),
            "position_ids": (place[self._seen : end] - start).clamp(min=0),
        }


def align_left(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Move the padding of each row to its left, so that all rows end in a real token.

    To a causal model this makes no difference: tokens keep their order, and the mask their positions.

    Args:
        input_ids: (batch, length).
        attention_mask: (batch, length), 0 at padding.

    Returns:
        The rows (batch, length), and how many tokens of each are padding (batch,): None, if there is no
        padding.

    Raises:
        ValueError: the mask has another shape, or leaves a row without a token.
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
    return input_ids.gather(1, order), (~mask).sum(1)
