"""What is minimised: the loss of learnt tokens, or that of preferences."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.training.data import Item
from torchgguf.training.loop.batch_loss import BatchLoss
from torchgguf.training.loop.batches import Batch


@dataclass(frozen=True)
class Objective:
    """A loss that is the mean over tokens, or over pairs.

    Attributes:
        unit: what the loss is a mean over.
        weight: returns how many of these an item has.
        total: returns the sum of the losses of a batch, given a model, the batch and `beta`.
    """

    unit: str
    weight: Callable[[Item], int]
    total: Callable[[BatchLoss, Batch, float], Tensor]


def _sum_of_tokens(losses: BatchLoss, batch: Batch, beta: float) -> Tensor:
    total: Tensor = losses(batch)
    return total


def _sum_of_pairs(losses: BatchLoss, batch: Batch, beta: float) -> Tensor:
    """Sum up the losses of pairs: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""
    now = -losses(batch, by_sample=True).view(-1, 2)
    before = torch.tensor([item.reference for item in batch.items]).to(now)
    gains = now - before
    return -F.logsigmoid(beta * (gains[:, 0] - gains[:, 1])).sum()


TOKENS = Objective("token", lambda item: item.trained, _sum_of_tokens)
PAIRS = Objective("pair", lambda item: 1, _sum_of_pairs)
