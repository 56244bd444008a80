"""`BatchLoss`: a model as a module that returns losses of batches, without logits of other positions.

Shape letters: N tokens that are learnt.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchgguf.models.blocks.chunked_loss import LOGITS_IN_MEMORY, chunked_next_token_loss
from torchgguf.models.blocks.losses import IGNORED
from torchgguf.training.loop.batches import Batch


class BatchLoss(nn.Module):
    """Computes losses in nats. Parts of the model run inside its `forward`, as FSDP requires.

    Args:
        model: a model with a language head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: Batch, by_sample: bool = False) -> Tensor:
        """Return the sum of the losses of all learnt tokens, or of those of each sample `(samples,)`."""
        states = self.model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        if by_sample:
            learnt = batch.labels != IGNORED
            losses = self._of_tokens(states[learnt], batch.labels[learnt])
            return losses.new_zeros(batch.samples).index_add(0, batch.owners, losses)
        labels = F.pad(batch.labels[:, :-1], (1, 0), value=IGNORED)  # at the places of the tokens themselves
        trained = [p for p in self.model.head.parameters() if p.requires_grad]
        vocab_size = self.model.config.vocab_size
        return chunked_next_token_loss(self.model.score, states, labels, trained, vocab_size, 1)

    def _of_tokens(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return the losses of tokens `(N,)`; logits of some at a time are in memory."""
        size = max(1, LOGITS_IN_MEMORY // self.model.config.vocab_size)
        parts = zip(states.split(size), targets.split(size), strict=True)
        losses = [checkpoint(self._score, *part, use_reentrant=False) for part in parts]
        return torch.cat(losses)

    def _score(self, states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.model.score(states).float(), targets, reduction="none")
