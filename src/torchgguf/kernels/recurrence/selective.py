"""The selective scan of Mamba (Gu and Dao 2023, arXiv 2312.00752), a chunk at a time.

Within a chunk, states are found by doubling: after the i-th round each contains what its last 2^i positions
added. There are no quotients of decays, so that none can overflow.

Shape letters: B batch, T positions, C channels, N size of a channel's state.
"""

from functools import partial

import torch
from torch import Tensor

from torchgguf.kernels.recurrence.chunks import differentiate_chunks, scan_chunks

_CHUNK = 16


def _accumulate(factor: Tensor, added: Tensor) -> Tensor:
    """Solve s_t = factor_t s_(t-1) + added_t, with s = 0 before the first position; `(B, T, C, N)`."""
    reach, size = 1, added.shape[1]
    while reach < size:
        late = added[:, reach:] + factor[:, reach:] * added[:, :-reach]
        factor = torch.cat((factor[:, :reach], factor[:, reach:] * factor[:, :-reach]), dim=1)
        added = torch.cat((added[:, :reach], late), dim=1)
        reach *= 2
    return added


def _states(a: Tensor, x: Tensor, step_size: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors on the states, and the states after each position, `(B, T, C, N)`."""
    factor = (step_size[..., None] * a).exp()
    added = (step_size * x)[..., None] * b[:, :, None]
    first = added[:, :1] + factor[:, :1] * state[:, None]
    return factor, _accumulate(factor, torch.cat((first, added[:, 1:]), dim=1))


def _forward(
    a: Tensor, x: Tensor, step_size: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    _, states = _states(a, x, step_size, b, state)
    return (states @ c[..., None])[..., 0], states[:, -1].clone()


def _backward(
    a: Tensor,
    x: Tensor,
    step_size: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    grad_output: Tensor,
    grad_state: Tensor,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    factor, states = _states(a, x, step_size, b, state)
    before = torch.cat((state[:, None], states[:, :-1]), dim=1)
    # The gradients of states are the same recurrence from the last position to the first.
    read = grad_output[..., None] * c[:, :, None]
    last = read[:, -1:] + grad_state[:, None]
    read = torch.cat((read[:, :-1], last), dim=1).flip(1)
    later = torch.cat((factor[:, :1], factor[:, 1:].flip(1)), dim=1)  # the first factor is not read
    grads = _accumulate(later, read).flip(1)

    by_b = (grads @ b[..., None])[..., 0]
    grad_decay = grads * factor * before
    grad_x = step_size * by_b
    grad_step = x * by_b + (grad_decay * a).sum(-1)
    grad_b = (grads * (step_size * x)[..., None]).sum(2)
    grad_c = (states * grad_output[..., None]).sum(2)
    grad_a = (grad_decay * step_size[..., None]).sum((0, 1))
    return (grad_x, grad_step, grad_b, grad_c), (grad_a,), factor[:, 0] * grads[:, 0]


def selective_forward(
    x: Tensor, step_size: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what `torchgguf.nn.selective_scan` documents, a chunk at a time."""
    sequences = [each.to(state.dtype) for each in (x, step_size, b, c)]
    outputs, states = scan_chunks(partial(_forward, a.to(state.dtype)), sequences, state, _CHUNK)
    if not outputs:
        return x.new_empty(x.shape), state.clone()
    return torch.cat(outputs, dim=1).to(x.dtype), states[-1]


def selective_backward(
    grad_output: Tensor,
    grad_state: Tensor,
    x: Tensor,
    step_size: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of x, step_size, a, b, c and state."""
    if x.shape[1] == 0:
        zeros = [torch.zeros_like(each) for each in (x, step_size, a, b, c)]
        return (*zeros, grad_state.clone())
    factors = a.to(state.dtype)
    (gx, gd, gb, gc), (ga,), before = differentiate_chunks(
        partial(_forward, factors),
        partial(_backward, factors),
        [each.to(state.dtype) for each in (x, step_size, b, c)],
        state,
        grad_output.to(state.dtype),
        grad_state,
        _CHUNK,
    )
    grads = zip((gx, gd, ga, gb, gc), (x, step_size, a, b, c), strict=True)
    return (*(grad.to(each.dtype).contiguous() for grad, each in grads), before.contiguous())
