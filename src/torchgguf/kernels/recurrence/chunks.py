"""Recurrences in chunks of a text: the loops over chunks, and the decays within one.

Every decay is a product of factors between two positions, computed from those factors alone. Nothing is
divided by a decay since the beginning, which would underflow.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

Forward = Callable[..., tuple[Tensor, Tensor]]
Backward = Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]]


def scan_chunks(
    forward: Forward, sequences: Sequence[Tensor], state: Tensor, size: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Apply `forward` to each chunk of a text.

    Args:
        forward: maps the chunk of each sequence and the state before it to outputs and the state after it.
        sequences: tensors `(B, T, ...)`.
        state: before the text.
        size: the positions of a chunk.

    Returns:
        The outputs of each chunk, and the states between chunks: one more than there are chunks.
    """
    outputs, states = [], [state]
    for start in range(0, sequences[0].shape[1], size):
        output, state = forward(*(each[:, start : start + size] for each in sequences), states[-1])
        outputs.append(output)
        states.append(state)
    return outputs, states


def differentiate_chunks(
    forward: Forward,
    backward: Backward,
    sequences: Sequence[Tensor],
    state: Tensor,
    grad_output: Tensor,
    grad_state: Tensor,
    size: int,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Compute the gradients of `scan_chunks`. Only states between chunks are in memory.

    Args:
        forward: as in `scan_chunks`.
        backward: maps what `forward` reads, and the gradients of what it returns, to the gradients of
            sequences, of constants, and of the state before the chunk.
        sequences: as in `scan_chunks`.
        state: before the text.
        grad_output: `(B, T, ...)`.
        grad_state: the gradient of the state after the text.
        size: the positions of a chunk.

    Returns:
        The gradients of sequences, of constants (summed over chunks), and of the state.
    """
    _, states = scan_chunks(forward, sequences, state, size)
    found: list[tuple[Tensor, ...]] = []
    constants: list[tuple[Tensor, ...]] = []
    for i in reversed(range(len(states) - 1)):
        part = slice(i * size, (i + 1) * size)
        chunk = [each[:, part] for each in sequences]
        grads, constant, grad_state = backward(*chunk, states[i], grad_output[:, part], grad_state)
        found.insert(0, grads)
        constants.append(constant)
    joined = [torch.cat(grads, dim=1) for grads in zip(*found, strict=True)]
    return joined, [sum(grads[1:], grads[0]) for grads in zip(*constants, strict=True)], grad_state


def scan_forward(
    forward: Forward,
    x: Tensor,
    step_size: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    *,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Compute a scan of Mamba or Mamba 2, a chunk at a time.

    Args:
        forward: maps `a`, the chunk of each sequence, and the state before it, as in `scan_chunks`.
        x: as the other tensors, as `torchgguf.nn.selective_scan` and `state_space_scan` document.
        step_size: see `x`.
        a: see `x`.
        b: see `x`.
        c: see `x`.
        state: see `x`.
        size: the positions of a chunk.
    """
    sequences = [each.to(state.dtype) for each in (x, step_size, b, c)]
    outputs, states = scan_chunks(partial(forward, a.to(state.dtype)), sequences, state, size)
    if not outputs:
        return x.new_empty(x.shape), state.clone()
    return torch.cat(outputs, dim=1).to(x.dtype).contiguous(), states[-1]


def scan_backward(
    forward: Forward,
    backward: Backward,
    grad_output: Tensor,
    grad_state: Tensor,
    x: Tensor,
    step_size: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    *,
    size: int,
) -> tuple[Tensor, ...]:
    """Return the gradients of x, step_size, a, b, c and state of `scan_forward`."""
    inputs = (x, step_size, a, b, c)
    if x.shape[1] == 0:
        return (*(torch.zeros_like(each) for each in inputs), grad_state.clone())
    factors = a.to(state.dtype)
    (gx, gd, gb, gc), (ga,), before = differentiate_chunks(
        partial(forward, factors),
        partial(backward, factors),
        [each.to(state.dtype) for each in (x, step_size, b, c)],
        state,
        grad_output.to(state.dtype),
        grad_state,
        size,
    )
    grads = zip((gx, gd, ga, gb, gc), inputs, strict=True)
    return (*(grad.to(each.dtype).contiguous() for grad, each in grads), before.contiguous())


def segment_decays(log_decay: Tensor) -> Tensor:
    """Return the decays between positions: `[..., t, s, n]` is exp of the sum of log_decay over s < i <= t.

    Above the diagonal, where t < s, it is 0.

    Args:
        log_decay: `(..., T, n)`.
    """
    size = log_decay.shape[-2]
    lower = torch.ones(size, size, dtype=torch.bool, device=log_decay.device).tril()[..., None]
    below = lower & ~torch.eye(size, dtype=torch.bool, device=log_decay.device)[..., None]
    terms = torch.where(below, log_decay[..., :, None, :], 0.0)
    return torch.where(lower, terms.cumsum(-3).exp(), 0.0)


def decay_gradients(pairs: Tensor, start: Tensor, end: Tensor, whole: Tensor) -> Tensor:
    """Return the gradients of log_decay, `(..., T, n)`, from those of the logarithms of decays.

    The decay from s to t contains each log_decay of s < i <= t. So the gradient of log_decay i is a sum over
    those pairs; it is a sum of positive and negative terms, never a difference of sums that grow.

    Args:
        pairs: of the decays that `segment_decays` returns, `(..., T, T, n)`; the diagonal is not read.
        start: of the decays from before the first position to each, `(..., T, n)`.
        end: of the decays from each position to the last one, `(..., T, n)`; the last one's is not read.
        whole: of the decay from before the first position to the last one, `(..., n)`.
    """
    # Column j is what position j - 1 has written; column 0 is the state before the chunk.
    last = torch.cat((whole[..., None, :], end[..., :-1, :]), dim=-2)
    columns = torch.cat((start[..., :, None, :], pairs[..., :-1, :]), dim=-2)
    columns = torch.cat((columns[..., :-1, :, :], columns[..., -1:, :, :] + last[..., None, :, :]), dim=-3)
    size = start.shape[-2]
    lower = torch.ones(size, size, dtype=torch.bool, device=pairs.device).tril()[..., None]
    sums = torch.where(lower, columns, 0.0).cumsum(-2)
    return torch.where(lower, sums, 0.0).sum(-3)


def weighted_products(x: Tensor, y: Tensor, decays: Tensor) -> Tensor:
    """Return the products of x_t and y_s under the decays from s to t, `(..., T, T)`.

    Args:
        x: `(..., T, N)`.
        y: `(..., T, N)`.
        decays: `(..., T, T, n)`; n is N, or 1 where all channels decay alike.
    """
    if decays.shape[-1] == 1:
        return (x @ y.mT) * decays[..., 0]
    return torch.einsum("...tn,...sn,...tsn->...ts", x, y, decays)


def product_gradients(grad: Tensor, x: Tensor, y: Tensor, decays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `weighted_products` with respect to x, y and the logarithms of decays."""
    if decays.shape[-1] == 1:
        weights = grad * decays[..., 0]
        return weights @ y, weights.mT @ x, (weights * (x @ y.mT))[..., None]
    weighted = grad[..., None] * decays
    grad_x = torch.einsum("...tsn,...sn->...tn", weighted, y)
    grad_y = torch.einsum("...tsn,...tn->...sn", weighted, x)
    return grad_x, grad_y, weighted * x[..., :, None, :] * y[..., None, :, :]
