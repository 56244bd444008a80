"""What is minimised: the loss of learnt tokens, or that of preferences.

Shape letters: N tokens that are learnt.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.training.data import Item
from torchgguf.training.loop.batches import Batch


@dataclass(frozen=True)
class Objective:
    """A loss that is the mean over tokens, or over pairs.

    Attributes:
        unit: what the loss is a mean over.
        weight: returns how many of these an item has.
        total: returns the sum of the losses of a batch, given those of its learnt tokens `(N,)`, the batch
            and `beta`.
    """

    unit: str
    weight: Callable[[Item], int]
    total: Callable[[Tensor, Batch, float], Tensor]


def text_log_probabilities(losses: Tensor, batch: Batch) -> Tensor:
    """Return the log-probability of each sample, given the losses of its tokens `(N,)`."""
    return -losses.new_zeros(batch.samples).index_add(0, batch.owners, losses)


def _sum_of_tokens(losses: Tensor, batch: Batch, beta: float) -> Tensor:
    return losses.sum()


def _sum_of_pairs(losses: Tensor, batch: Batch, beta: float) -> Tensor:
    """Sum up the losses of pairs: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""
    now = text_log_probabilities(losses, batch).view(-1, 2)
    before = torch.tensor([item.reference for item in batch.items]).to(now)
    gains = now - before
    return -F.logsigmoid(beta * (gains[:, 0] - gains[:, 1])).sum()


TOKENS = Objective("token", lambda item: item.trained, _sum_of_tokens)
PAIRS = Objective("pair", lambda item: 1, _sum_of_pairs)
