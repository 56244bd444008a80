"""The recurrences on the CPU, by the native kernels: float32 states alone, float64 is the reference's.

Many positions of Mamba 2 are a delta rule without correction, whose keys and queries are b and c, and whose
state is transposed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import torchgguf._native as _native
from torchgguf.kernels.ops import LIBRARY
from torchgguf.kernels.recurrence.ops import RECURRENCE_REFERENCE, RECURRENCES

# From this many positions on, chunks of them beat a pass over the state for each.
_CHUNKS_FROM = 8


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


for _name, _compute in (
    ("gated_delta_rule", _gated_delta_rule),
    ("selective_scan", _selective_scan),
    ("state_space_scan", _state_space_scan),
):
    LIBRARY.impl(_name, _checked(_name, _compute), "CPU")
LIBRARY.impl("causal_convolution", _causal_convolution, "CPU")
