"""Losses of the heads, computed as in transformers: each is a mean, a scalar."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # labels of this value do not count


def next_token_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Compute the negative log-likelihood of tokens, each given those before it, in nats a token.

    Args:
        logits: scores `(..., T, V)` of the token after each position.
        labels: tokens `(..., T)`, `IGNORED` at positions to ignore.
        num_items_in_batch: divisor of the sum, for a batch in parts; by default the number of tokens
            predicted.

    Raises:
        ValueError: the shape of labels is not that of the positions scored.
    """
    expect_labels(labels, logits.shape[:-1], "a token for each position scored")
    targets = F.pad(labels[..., 1:], (0, 1), value=IGNORED)  # labels move, not logits: they are smaller
    return _cross_entropy(logits.float(), targets, num_items_in_batch)


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy of logits `(B, T, num_labels)`; labels `(B, T)` may be `IGNORED`."""
    expect_labels(labels, logits.shape[:-1], "a label for each token")
    return _cross_entropy(logits.float(), labels)


def sequence_loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Compute the loss of scores `(B, num_labels)` by the config's `problem_type`.

    If that is None, the number and dtype of labels determine it, and the config stores it: a classifier saved
    after training states the meaning of its scores.
    """
    if config.problem_type is None:
        config.problem_type = _problem_type(config.num_labels, labels.dtype)
    if config.problem_type == "single_label_classification":
        expect_labels(labels.flatten(), logits.shape[:1], "a label for each text")
        return F.cross_entropy(logits, labels.flatten().to(logits.device), ignore_index=IGNORED)
    loss = F.mse_loss if config.problem_type == "regression" else F.binary_cross_entropy_with_logits
    if config.num_labels == 1:
        labels = labels.reshape(-1, 1)
    expect_labels(labels, logits.shape, "a number for each text and label")
    return loss(logits, labels.to(logits))


def span_loss(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Compute the mean cross-entropy of starts and ends of spans; scores `(B, T)`, positions `(B,)`.

    Positions after the text do not count (the answer was cut off); negative ones mean the first position.
    """
    behind = start_logits.shape[1]
    losses = []
    for logits, positions in ((start_logits, starts), (end_logits, ends)):
        expect_labels(positions.flatten(), logits.shape[:1], "a position for each text")
        target = positions.flatten().clamp(0, behind).to(logits.device)
        losses.append(F.cross_entropy(logits, target, ignore_index=behind))
    return (losses[0] + losses[1]) / 2


def _problem_type(num_labels: int, dtype: torch.dtype) -> str:
    if num_labels == 1:
        return "regression"
    return (
        "single_label_classification" if dtype in (torch.int64, torch.int32) else "multi_label_classification"
    )


def _cross_entropy(logits: Tensor, labels: Tensor, count: Tensor | int | None = None) -> Tensor:
    targets = labels.flatten().to(logits.device)
    reduction = "mean" if count is None else "sum"
    loss = F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=IGNORED, reduction=reduction)
    return loss if count is None else loss / torch.as_tensor(count, device=loss.device)


def expect_labels(labels: Tensor, shape: torch.Size, what: str) -> None:
    """Check the shape of labels.

    Raises:
        ValueError: it is another; the message contains `what`, which states what labels are.
    """
    if labels.shape != shape:
        raise ValueError(f"labels must be {what}, {tuple(shape)}, got shape {tuple(labels.shape)}")
