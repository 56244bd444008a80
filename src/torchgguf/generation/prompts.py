"""The prompts of a call of `generate`: tokens or embeddings, what is padding, and what is wrong with them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.context import align_left


@dataclass(frozen=True)
class Prompts:
    """What texts begin with, padding on the left.

    Attributes:
        given: the tokens as the caller passed them, `(batch, length)`; the length is 0 for embeddings only.
        tokens: the same in the order in which they are read; tokens that are not read are in the vocabulary.
        embeds: `(batch, positions, hidden_size)` what is read instead of the tokens.
        padding: `(batch,)` how many positions of each row are padding; None: there is no padding.
        order: of positions, as in `align_left`.
    """

    given: Tensor
    tokens: Tensor
    embeds: Tensor | None
    padding: Tensor | None
    order: Tensor | None

    @property
    def length(self) -> int:
        """The number of positions."""
        return self.tokens.shape[1] if self.embeds is None else self.embeds.shape[1]

    def aligned(self, beside: Tensor) -> Tensor:
        """Return values of positions, `(batch or 1, length)`, in the order in which they are read."""
        return beside if self.order is None else beside.expand_as(self.order).gather(1, self.order)


def read_prompts(
    model: Any,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    config: GenerationConfig,
) -> Prompts:
    """Check the prompts of a call, and move their padding to the left.

    Args:
        model: reads them.
        input_ids: `(batch, length)`; None: the bos token, or no tokens where there are embeddings.
        inputs_embeds: `(batch, length, hidden_size)`.
        attention_mask: `(batch, length)`, 0 at padding; None: padding is found by `pad_token_id`.
        config: of the call.

    Raises:
        ValueError: shapes do not match, a token is outside the vocabulary, or there are no tokens.
    """
    device = getattr(model, "device", None)
    embeds = None if inputs_embeds is None else inputs_embeds.to(device)
    given = _tokens(input_ids, embeds, config).to(device)
    if embeds is not None and given.shape[1] not in (0, embeds.shape[1]):
        raise ValueError(
            f"input_ids have {given.shape[1]} tokens, but inputs_embeds {embeds.shape[1]} positions"
        )
    if attention_mask is None and embeds is None:
        attention_mask = guess_mask(given, config)
    order, padding = align_left(given if embeds is None else embeds, attention_mask)
    tokens = given
    if order is not None:
        if given.shape[1]:
            tokens = given.gather(1, order)
        embeds = None if embeds is None else embeds.take_along_dim(order[..., None], 1)
    return Prompts(given, _in_vocabulary(model, tokens, padding), embeds, padding, order)


def _tokens(input_ids: Tensor | None, embeds: Tensor | None, config: GenerationConfig) -> Tensor:
    if embeds is not None and (embeds.dim() != 3 or embeds.shape[1] == 0):
        raise ValueError(
            "inputs_embeds must have shape (batch, length, hidden_size), length above 0, "
            f"not {tuple(embeds.shape)}"
        )
    if input_ids is None and embeds is not None:
        return torch.empty((len(embeds), 0), dtype=torch.long)
    if input_ids is None:
        if config.bos_token_id is None:
            raise ValueError(
                "without input_ids the text starts from the bos token, but bos_token_id is not set"
            )
        return torch.tensor([[config.bos_token_id]])
    if input_ids.dim() != 2 or (input_ids.shape[1] == 0 and embeds is None):
        raise ValueError(
            f"input_ids must have shape (batch, length), length above 0, not {tuple(input_ids.shape)}"
        )
    return input_ids


def guess_mask(prompts: Tensor, config: GenerationConfig) -> Tensor | None:
    """Return a mask that hides padding tokens, unless they may end a text as well."""
    pad = config.pad_token_id
    if pad is None:
        return None
    if pad not in config.eos_token_ids:
        return (prompts != pad).long()
    real = prompts != pad
    # How many padding tokens there are at both sides of each row: one may be a bos or an eos token.
    sides = torch.stack([side.cumsum(1).eq(0).sum(1) for side in (real, real.flip(1))])
    if len(prompts) > 1 and bool((sides != sides[:, :1]).any() | (sides > 1).any()):
        warnings.warn(
            f"without attention_mask all tokens of the prompts are read: pad_token_id={pad} ends texts "
            "too, so padding is not recognised; pass the attention_mask of the tokenizer",
            UserWarning,
            stacklevel=5,
        )
    return None


def vocabulary_size(model: Any) -> int | None:
    """Return the number of tokens that a model knows, or None, if its config does not state it."""
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    return size if isinstance(size, int) else None


def _in_vocabulary(model: Any, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Return the tokens, with any token of the vocabulary where padding is outside of it.

    Raises:
        ValueError: another token is outside the vocabulary.
    """
    size = vocabulary_size(model)
    if size is None or tokens.device.type == "meta":
        return tokens
    outside = (tokens < 0) | (tokens >= size)
    if padding is not None:
        hidden = torch.arange(tokens.shape[1], device=tokens.device) < padding[:, None]
        tokens, outside = tokens.masked_fill(outside & hidden, 0), outside & ~hidden
    if bool(outside.any()):
        row = int(outside.any(1).nonzero()[0])
        token = int(tokens[row][outside[row]][0])
        raise ValueError(f"input_ids must be at least 0, below vocab_size={size}, got {token} in row {row}")
    return tokens
