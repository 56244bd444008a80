"""The selective scan of Mamba (Gu and Dao 2023, arXiv 2312.00752), a chunk at a time.

Within a chunk, states are found by doubling: after the i-th round each contains what its last 2^i positions
added. There are no quotients of decays, so that none can overflow.

Shape letters: B batch, T positions, C channels, N size of a channel's state.
"""

from functools import partial

import torch
from torch import Tensor

from torchgguf.kernels.recurrence.chunks import scan_backward, scan_forward

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


selective_forward = partial(scan_forward, _forward, size=_CHUNK)
selective_backward = partial(scan_backward, _forward, _backward, size=_CHUNK)
