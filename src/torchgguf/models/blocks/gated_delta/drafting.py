"""`PredictionBlock`: guesses the token after the next one, by the state of the model and the next token.

DeepSeek-V3 (2024, arXiv 2412.19437, section 2.2) describes such blocks. Shape letters: N positions, H size of
the stream.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.gated_delta.model import GatedDeltaModel
from torchgguf.models.blocks.gemma.unit_offset import unit_offset_norm
from torchgguf.models.blocks.step import Step
from torchgguf.models.io.kept_layers import fill_kept
from torchgguf.nn import ATTENTION_FUNCTIONS, DynamicCache, Linear, attention_masks

_NORM = re.compile(r"\.shared_head_norm\.")


class _Head(nn.Module):
    """The last norm, under the name that weight maps have for it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.norm = unit_offset_norm(config)


class PredictionBlock(nn.Module):
    """One layer with attention, over the embedding of a token and the state of the model before it.

    Args:
        model: with its head; the block shares its embedding, its head and its angles.
        has_norm: whether the block has a last norm of its own; otherwise it shares the model's.
    """

    def __init__(self, model: Any, has_norm: bool = True) -> None:
        super().__init__()
        base: GatedDeltaModel = model.base_model
        config = base.config
        # Not modules of this one: they belong to the model.
        self._shared = (model, base)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.enorm, self.hnorm = unit_offset_norm(config), unit_offset_norm(config)
        self.layer = base.make_further_layer(config)
        self.shared_head = _Head(config) if has_norm else None
        self.cache = DynamicCache()

    def forward(self, states: Tensor, tokens: Tensor, start: int) -> Tensor:
        """Return the scores of the tokens after the next ones.

        Args:
            states: of the model, after its last norm, `(1, N, H)`.
            tokens: the next token of each of these positions, `(1, N)`.
            start: the first of these positions.

        Returns:
            `(1, N, vocabulary)`.
        """
        model, base = self._shared
        embeds = base.get_input_embeddings()(tokens)
        x = self.eh_proj(torch.cat((self.enorm(embeds), self.hnorm(states)), dim=-1))
        positions = torch.arange(start, start + x.shape[1], device=x.device)[None]
        step = Step(
            attention_masks({None}, None, x, self.cache),
            ATTENTION_FUNCTIONS[base.attn_implementation],
            base.make_rotations(positions, x.dtype),
            self.cache,
        )
        norm: Any = base.norm if self.shared_head is None else self.shared_head.norm
        scores: Tensor = model.get_output_embeddings()(norm(self.layer(x, step)))
        return scores

    def guess(self, states: Tensor, tokens: Tensor, start: int) -> Tensor:
        """Return the most likely token `(1, 1)` after the last of `tokens`; for arguments see `forward`."""
        scores: Tensor = self(states, tokens, start)
        return scores[:, -1:].argmax(-1)


class Drafting:
    """Mixin of models with a head, whose files may contain a block that predicts further tokens."""

    def make_block(self: Any) -> PredictionBlock:
        """Return the block on the meta device, without weights."""
        with torch.device("meta"):
            return PredictionBlock(self, has_norm=any(_NORM.search(name) for name in self.kept))

    def make_drafter(self: Any) -> PredictionBlock:
        """Return the block, with an empty cache.

        Raises:
            ValueError: the model came from no file with such a block, or from one with several.
        """
        if (blocks := self.config.mtp_num_hidden_layers) != 1:
            raise ValueError(
                f"assistant='mtp' needs a model with one block for multi-token prediction, got {blocks}"
            )
        block: PredictionBlock = self.make_block()
        fill_kept(block, self, self.config.num_hidden_layers)
        return block.eval()
