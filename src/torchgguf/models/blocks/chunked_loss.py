"""The loss of a language model without the logits of all positions in memory.

With a long vocabulary, logits are larger than all else in a training step: 1,024 positions of 151,936 tokens
take 0.6 GB, and their gradient as much. Here some positions are scored at a time, and the gradient of their
states is computed at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from torchgguf.models.blocks.losses import IGNORED, expect_labels

LOGITS_IN_MEMORY = 2**25
"""128 MB of logits at a time. Each chunk decodes a packed head twice, so there should be few."""


def chunked_next_token_loss(
    score: Callable[[Tensor], Tensor],
    states: Tensor,
    labels: Tensor,
    parameters: Sequence[nn.Parameter],
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Compute `next_token_loss` of `score(states)`; positions whose labels are ignored are not scored.

    Gradients have no gradients.

    Args:
        score: maps states `(n, H)` to logits `(n, V)`.
        states: last states of a model `(..., T, H)`.
        labels: tokens `(..., T)`, `IGNORED` at positions to ignore.
        parameters: those of `score` that are trained.
        vocab_size: V.
        num_items_in_batch: divisor of the sum, by default the number of tokens predicted.

    Raises:
        ValueError: the shape of labels is not that of the positions.
    """
    expect_labels(labels, states.shape[:-1], "a token for each position scored")
    targets = F.pad(labels[..., 1:], (0, 1), value=IGNORED).flatten().to(states.device)
    counted = targets != IGNORED
    rows, targets = states.flatten(0, -2)[counted], targets[counted]
    divisor = torch.as_tensor(len(targets) if num_items_in_batch is None else num_items_in_batch)
    size = max(1, LOGITS_IN_MEMORY // vocab_size)
    total: Tensor = _ChunkedLoss.apply(rows, targets, score, size, *parameters)  # type: ignore[no-untyped-call]
    return total / divisor.to(total.device)


class _ChunkedLoss(torch.autograd.Function):
    """The sum of cross-entropies; the forward pass computes the gradients, too."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        targets: Tensor,
        score: Callable[[Tensor], Tensor],
        size: int,
        *parameters: nn.Parameter,
    ) -> Tensor:
        needs_rows: bool = ctx.needs_input_grad[0]
        needs_parameters: tuple[bool, ...] = ctx.needs_input_grad[4:]
        trained = [p for p, needed in zip(parameters, needs_parameters, strict=True) if needed]
        total = torch.zeros((), dtype=torch.float32, device=rows.device)
        grad_rows = torch.empty_like(rows) if needs_rows else None
        grads: list[Tensor | None] = [None] * len(trained)
        for first in range(0, len(rows), size):
            with torch.set_grad_enabled(needs_rows or bool(trained)):
                chunk = rows[first : first + size].detach().requires_grad_(needs_rows)
                loss = F.cross_entropy(score(chunk).float(), targets[first : first + size], reduction="sum")
            total += loss.detach()
            if not loss.requires_grad:
                continue
            wanted = [chunk, *trained] if needs_rows else trained
            found = list(torch.autograd.grad(loss, wanted, allow_unused=True))
            if grad_rows is not None:
                grad_rows[first : first + size] = found.pop(0)
            grads = [new if old is None else old.add_(new) for old, new in zip(grads, found, strict=True)]
        ctx.grad_rows = grad_rows
        remaining = iter(grads)
        ctx.grads = [next(remaining) if needed else None for needed in needs_parameters]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, *grads = (None if g is None else g * grad.to(g.dtype) for g in (ctx.grad_rows, *ctx.grads))
        return rows, None, None, None, *grads
