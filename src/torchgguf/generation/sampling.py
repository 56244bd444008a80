"""Choosing a token from scores: the largest, the largest few, or a random draw.

A decode step on a CPU spends its time reading weights; these keep the vocabulary (150 000 scores) from adding
milliseconds. `torch.argmax`, `topk` and `multinomial` need 0.3, 0.4 and 4 ms there, these 0.02, 0.08 and 0.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64


def argmax(scores: Tensor) -> Tensor:
    """Return the index (batch,) of each row's largest score (batch, n), the first one if several tie."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return torch.from_numpy(scores.numpy().argmax(-1))  # vectorized in NumPy, not in torch
    return scores.argmax(-1)


def top_candidates(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` largest scores of each row and their indices, both (batch, k), largest first.

    On a CPU, only the `k` chunks with the largest maxima are searched: no other can hold one of the `k` best.
    """
    batch, n = scores.shape
    if scores.device.type != "cpu" or n < 4 * k * CHUNK:
        best, index = scores.topk(k)
        return best, index
    if n % CHUNK:
        scores = F.pad(scores, (0, -n % CHUNK), value=float("-inf"))
    chunks = scores.view(batch, -1, CHUNK)
    chosen = chunks.amax(-1).topk(k).indices
    candidates = chunks.gather(1, chosen[..., None].expand(-1, -1, CHUNK)).flatten(1)
    best, index = candidates.topk(k)
    return best, chosen.gather(1, index // CHUNK) * CHUNK + index % CHUNK


def draw(scores: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one index (batch,) a row with probability softmax(scores), scores (batch, n); -inf is never drawn.

    It inverts the cumulative distribution, in float64 so that the sum of many small terms does not bend it.

    Raises:
        RuntimeError: a row's scores are NaN, or all -inf. (A GPU is not asked; its own error comes later.)
    """
    cumulative = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if scores.device.type == "cpu" and bool(total.isnan().any()):
        raise RuntimeError("there is no token to draw: all scores are -inf, or some are not numbers (NaN)")
    point = torch.rand(total.shape, dtype=torch.float64, device=scores.device, generator=generator)
    return torch.searchsorted(cumulative, point * total, right=True).squeeze(1)


def refuse_forbidden(best: Tensor) -> None:
    """Refuse to go on where processors forbid all tokens.

    Args:
        best: the score of each row's best token, (batch, 1).

    Raises:
        RuntimeError: one is -inf. (A GPU is not asked: waiting for its answer is slow.)
    """
    if best.device.type == "cpu" and bool((best == float("-inf")).any()):
        raise RuntimeError("there is no token to choose: the logits processors forbid all")
