"""The recurrences on the CPU, by the native kernels: float32 states alone, float64 is the reference's.

Many positions of Mamba 2 are a delta rule without correction, whose keys and queries are b and c, and whose
state is transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import torchgguf._native as _native
from torchgguf.kernels.ops import LIBRARY
from torchgguf.kernels.recurrence.ops import RECURRENCE_REFERENCE, RECURRENCES

# From this many positions on, chunks of them beat a pass over the state for each.
_CHUNKS_FROM = 8

# Channels of a task in the gradients of Mamba. Each has its own sums of the gradients of b and c.
_CHANNELS_PER_SLICE = 320


def _plain(x: Tensor) -> Tensor:
    """Return `x` as the kernels read it."""
    return x if x.dtype is torch.float32 and x.is_contiguous() else x.float().contiguous()


def _checked(
    name: str, compute: Callable[..., tuple[Tensor, Tensor]]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Compute natively what has a float32 state; what is wrong is named as by the reference."""
    _, like, check, *_ = RECURRENCES[name]

    def implementation(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        state, values = arguments[-1], arguments[like]
        if state.dtype is not torch.float32:
            return RECURRENCE_REFERENCE[name](*arguments)  # type: ignore[no-any-return]
        plain = [_plain(x) for x in arguments]
        out = plain[like].new_empty(plain[like].shape)
        new_state = plain[-1].new_empty(plain[-1].shape)
        try:
            result = compute(*plain, out, new_state)
        except (TypeError, ValueError):
            check(*arguments)
            raise
        return result if values.dtype is torch.float32 else (result[0].to(values.dtype), result[1])

    return implementation


def _gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    beta: Tensor,
    state: Tensor,
    out: Tensor,
    new_state: Tensor,
) -> tuple[Tensor, Tensor]:
    threads = torch.get_num_threads()
    _native.delta_rule(query, key, value, decay, beta, state, out, new_state, True, threads)
    return out, new_state


def _selective_scan(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, out: Tensor, new_state: Tensor
) -> tuple[Tensor, Tensor]:
    _native.selective_scan(x, step, a, b, c, state, out, new_state, torch.get_num_threads())
    return out, new_state


def _state_space_scan(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, out: Tensor, new_state: Tensor
) -> tuple[Tensor, Tensor]:
    threads = torch.get_num_threads()
    if x.dim() < 2 or x.shape[1] < _CHUNKS_FROM:
        _native.state_space_step(x, step, a, b, c, state, out, new_state, threads)
        return out, new_state
    transposed = state.mT.contiguous()
    new_transposed = torch.empty_like(transposed)
    _native.delta_rule(c, b, x, step * a, step, transposed, out, new_transposed, False, threads)
    return out, new_transposed.mT.contiguous()


def _slices(shared: int) -> int:
    """Return in how many slices the heads that share keys are differentiated; a slice is one task."""
    largest = next(size for size in (4, 3, 2, 1) if shared % size == 0)
    return shared // largest


def _delta_backward(
    corrected: bool,
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
    inputs = (grad_output, grad_state, query, key, value, decay, beta, state)
    slices = _slices(value.shape[2] // query.shape[2])
    shape = (*query.shape[:3], slices, query.shape[3])
    by_query, by_key = query.new_empty(shape), key.new_empty(shape)
    by_value, by_decay, by_beta, by_state = (x.new_empty(x.shape) for x in inputs[4:])
    grads = (by_query, by_key, by_value, by_decay, by_beta, by_state)
    _native.delta_rule_backward(*inputs, *grads, corrected, torch.get_num_threads())
    shared = (x[:, :, :, 0] if slices == 1 else x.sum(3) for x in (by_query, by_key))
    return (*shared, by_value, by_decay, by_beta, by_state)


def _state_space_backward(
    grad_output: Tensor,
    grad_state: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
) -> tuple[Tensor, ...]:
    before, after = (each.mT.contiguous() for each in (state, grad_state))
    by_c, by_b, by_x, by_decay, by_step, by_state = _delta_backward(
        False, grad_output, after, c, b, x, step * a, step, before
    )
    by_a = (by_decay * step).sum((0, 1))
    return by_x, by_step + by_decay * a, by_a, by_b, by_c, by_state.mT.contiguous()


def _selective_backward(
    grad_output: Tensor,
    grad_state: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
) -> tuple[Tensor, ...]:
    batch, length, channels = x.shape
    slices = max(1, -(-channels // _CHANNELS_PER_SLICE))
    by_x, by_step, by_state = (each.new_empty(each.shape) for each in (x, step, state))
    by_a = a.new_empty((batch, *a.shape))
    by_b, by_c = (each.new_empty((batch, slices, length, a.shape[1])) for each in (b, c))
    inputs = (grad_output, grad_state, x, step, a, b, c, state)
    _native.selective_scan_backward(
        *inputs, by_x, by_step, by_a, by_b, by_c, by_state, torch.get_num_threads()
    )
    return by_x, by_step, by_a.sum(0), by_b.sum(1), by_c.sum(1), by_state


def _differentiated(
    name: str, compute: Callable[..., tuple[Tensor, ...]]
) -> Callable[..., tuple[Tensor, ...]]:
    """Compute natively the gradients where the state is float32, in the dtypes of the arguments."""
    like = RECURRENCES[name][1]

    def implementation(*arguments: Tensor) -> tuple[Tensor, ...]:
        inputs = arguments[2:]
        if inputs[-1].dtype is not torch.float32 or inputs[like].numel() == 0:
            return RECURRENCE_REFERENCE[f"{name}_backward"](*arguments)  # type: ignore[no-any-return]
        grads = compute(*(_plain(x) for x in arguments))
        return tuple(grad.to(x.dtype) for grad, x in zip(grads, inputs, strict=True))

    return implementation


def _causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.dtype is torch.float64 or x.dim() != 3 or weight.dim() != 2:
        return RECURRENCE_REFERENCE["causal_convolution"](x, weight, bias)  # type: ignore[no-any-return]
    plain = _plain(x)
    new = x.shape[2] - weight.shape[1] + 1
    out = plain.new_empty((*x.shape[:2], max(new, 0)))
    try:
        parameters = _plain(weight), None if bias is None else _plain(bias)
        _native.causal_convolution(plain, *parameters, out, torch.get_num_threads())
    except (TypeError, ValueError):
        return RECURRENCE_REFERENCE["causal_convolution"](x, weight, bias)  # type: ignore[no-any-return]
    return out.to(x.dtype)


for _name, _compute, _backward in (
    ("gated_delta_rule", _gated_delta_rule, partial(_delta_backward, True)),
    ("selective_scan", _selective_scan, _selective_backward),
    ("state_space_scan", _state_space_scan, _state_space_backward),
):
    LIBRARY.impl(_name, _checked(_name, _compute), "CPU")
    LIBRARY.impl(f"{_name}_backward", _differentiated(_name, _backward), "CPU")
LIBRARY.impl("causal_convolution", _causal_convolution, "CPU")
