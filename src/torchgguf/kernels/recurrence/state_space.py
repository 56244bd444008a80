"""The state-space recurrence of Mamba 2 in chunks (Dao and Gu 2024, arXiv 2405.21060, section 6).

Shape letters: B batch, T positions, H heads, P size of a head, G groups, N size of the state.
"""

from functools import partial

from torch import Tensor

from torchgguf.kernels.recurrence.chunks import (
    decay_gradients,
    product_gradients,
    scan_backward,
    scan_forward,
    segment_decays,
    weighted_products,
)

_CHUNK = 64


class _Chunk:
    """What forward and backward both compute of a chunk; its tensors are `(B, H, T, ...)`."""

    def __init__(self, a: Tensor, x: Tensor, step_size: Tensor, b: Tensor, c: Tensor, state: Tensor) -> None:
        repeats = x.shape[2] // b.shape[2]
        self.b, self.c = (each.repeat_interleave(repeats, dim=2).transpose(1, 2) for each in (b, c))
        self.x, self.step = x.transpose(1, 2), step_size.transpose(1, 2)[..., None]
        self.added = self.step * self.x
        log_decay = self.step * a[:, None, None]
        self.decays = segment_decays(log_decay)
        self.from_start = log_decay[..., :1, :].exp() * self.decays[..., 0, :]
        self.to_end = self.decays[..., -1, :, :]
        self.whole = self.from_start[..., -1:, :]
        self.scores = weighted_products(self.c, self.b, self.decays)
        self.state = state


def _forward(a: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
    c = _Chunk(a, *arguments)
    output = (c.c * c.from_start) @ c.state.mT + c.scores @ c.added
    return output.transpose(1, 2), c.whole * c.state + (c.added * c.to_end).mT @ c.b


def _backward(a: Tensor, *arguments: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    *inputs, grad_output, grad_state = arguments
    c = _Chunk(a, *inputs)
    grad = grad_output.transpose(1, 2)
    reads, writes = grad @ c.state, c.added @ grad_state
    by_c, by_b, pairs = product_gradients((grad @ c.added.mT).tril(), c.c, c.b, c.decays)
    grad_c, grad_b = by_c + reads * c.from_start, by_b + writes * c.to_end
    grad_added = c.scores.mT @ grad + (c.b @ grad_state.mT) * c.to_end
    grad_before = (grad * c.from_start).mT @ c.c + c.whole * grad_state

    start = (c.c * reads).sum(-1, keepdim=True) * c.from_start
    end = (c.b * writes).sum(-1, keepdim=True) * c.to_end
    whole = (grad_state * c.state).sum((-2, -1))[..., None] * c.whole[..., 0]
    grad_decay = decay_gradients(pairs, start, end, whole)

    grad_step = (grad_added * c.x).sum(-1) + (grad_decay * a[:, None, None])[..., 0]
    grad_a = (grad_decay * c.step).sum((0, 2, 3))
    groups = inputs[2].shape[2]
    grad_b, grad_c = (g.transpose(1, 2).unflatten(2, (groups, -1)).sum(3) for g in (grad_b, grad_c))
    grad_x = (c.step * grad_added).transpose(1, 2)
    return (grad_x, grad_step.transpose(1, 2), grad_b, grad_c), (grad_a,), grad_before


state_space_forward = partial(scan_forward, _forward, size=_CHUNK)
state_space_backward = partial(scan_backward, _forward, _backward, size=_CHUNK)
