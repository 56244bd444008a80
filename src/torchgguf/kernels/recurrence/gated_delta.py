"""The gated delta rule in chunks (Yang et al. 2024, arXiv 2412.06464, section 3.3).

In a chunk, u_t is what position t adds to the state under its key: S_t = f_t S_(t-1) + k_t u_t. All u of a
chunk solve one triangular system, and outputs and the next state are products of matrices.

Shape letters: B batch, T positions, K heads of queries and keys, H heads of values, N size of keys, V of
values, n = N where each channel of keys has its decay, else 1.
"""

import torch
from torch import Tensor

from torchgguf.kernels.recurrence.chunks import (
    decay_gradients,
    differentiate_chunks,
    product_gradients,
    scan_chunks,
    segment_decays,
    weighted_products,
)

_CHUNK = 64
_CHANNEL_CHUNK = 16  # decays between positions are T x T x N there


class _Chunk:
    """What forward and backward both compute of a chunk; its tensors are `(B, H, T, ...)`."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor
    ) -> None:
        repeats = value.shape[2] // key.shape[2]
        self.q, self.k = (x.repeat_interleave(repeats, dim=2).transpose(1, 2) for x in (query, key))
        self.v, self.beta = value.transpose(1, 2), beta.transpose(1, 2)[..., None]
        log_decay = (decay if decay.dim() == 4 else decay[..., None]).transpose(1, 2)
        self.decays = segment_decays(log_decay)
        first = log_decay[..., :1, :].exp()
        self.from_start = first * self.decays[..., 0, :]
        self.to_end = self.decays[..., -1, :, :]
        self.whole = self.from_start[..., -1, :, None]
        self.products = weighted_products(self.k, self.k, self.decays).tril(-1)
        identity = torch.eye(self.v.shape[2], dtype=state.dtype, device=state.device)
        self.system = identity + self.beta * self.products
        self.error = self.v - (self.k * self.from_start) @ state
        self.u = torch.linalg.solve_triangular(
            self.system, self.beta * self.error, upper=False, unitriangular=True
        )
        self.scores = weighted_products(self.q, self.k, self.decays)
        self.state = state


def _forward(*arguments: Tensor) -> tuple[Tensor, Tensor]:
    c = _Chunk(*arguments)
    output = (c.q * c.from_start) @ c.state + c.scores @ c.u
    return output.transpose(1, 2), c.whole * c.state + (c.k * c.to_end).mT @ c.u


def _backward(*arguments: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    *inputs, grad_output, grad_state = arguments
    c = _Chunk(*inputs)
    grad = grad_output.transpose(1, 2)
    grad_u = c.scores.mT @ grad + (c.k * c.to_end) @ grad_state
    grad_right = torch.linalg.solve_triangular(c.system.mT, grad_u, upper=True, unitriangular=True)
    grad_system = -(grad_right @ c.u.mT).tril(-1)
    grad_beta = (grad_right * c.error).sum(-1) + (grad_system * c.products).sum(-1)
    grad_value = c.beta * grad_right

    # Three sides of the state: queries read it, keys read it, keys write it.
    q_reads, k_reads, k_writes = grad @ c.state.mT, grad_value @ c.state.mT, c.u @ grad_state.mT
    grad_before = (c.q * c.from_start).mT @ grad - (c.k * c.from_start).mT @ grad_value
    grad_before = grad_before + c.whole * grad_state
    by_q, by_k, by_score = product_gradients((grad @ c.u.mT).tril(), c.q, c.k, c.decays)
    by_reader, by_writer, by_product = product_gradients(c.beta * grad_system, c.k, c.k, c.decays)
    grad_q = by_q + q_reads * c.from_start
    grad_k = by_k + by_reader + by_writer - k_reads * c.from_start + k_writes * c.to_end

    alike = c.decays.shape[-1] == 1
    start = (c.q * q_reads - c.k * k_reads) * c.from_start
    end, whole = c.k * k_writes * c.to_end, (grad_state * c.state).sum(-1) * c.whole[..., 0]
    if alike:
        start, end, whole = (x.sum(-1, keepdim=True) for x in (start, end, whole))
    grad_decay = decay_gradients(by_score + by_product, start, end, whole).transpose(1, 2)

    heads = inputs[1].shape[2]
    grad_q, grad_k = (x.transpose(1, 2).unflatten(2, (heads, -1)).sum(3) for x in (grad_q, grad_k))
    decay = grad_decay[..., 0] if alike and inputs[3].dim() == 3 else grad_decay
    grads = (grad_q, grad_k, grad_value.transpose(1, 2), decay, grad_beta.transpose(1, 2))
    return grads, (), grad_before


def gated_delta_forward(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what `torchgguf.nn.gated_delta_rule` documents, a chunk at a time."""
    sequences = [x.to(state.dtype) for x in (query, key, value, decay, beta)]
    size = _CHUNK if decay.dim() == 3 else _CHANNEL_CHUNK
    outputs, states = scan_chunks(_forward, sequences, state, size)
    if not outputs:
        return value.new_empty(value.shape), state.clone()
    return torch.cat(outputs, dim=1).to(value.dtype).contiguous(), states[-1]


def gated_delta_backward(
    grad_output: Tensor,
    grad_state: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    beta: Tensor,
    state: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of query, key, value, decay, beta and state."""
    inputs = (query, key, value, decay, beta)
    if value.shape[1] == 0:
        return (*(x.new_empty(x.shape) for x in inputs), grad_state.clone())
    sequences = [x.to(state.dtype) for x in inputs]
    size = _CHUNK if decay.dim() == 3 else _CHANNEL_CHUNK
    grads, _, before = differentiate_chunks(
        _forward, _backward, sequences, state, grad_output.to(state.dtype), grad_state, size
    )
    return (*(g.to(x.dtype).contiguous() for g, x in zip(grads, inputs, strict=True)), before.contiguous())
