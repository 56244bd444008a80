"""The operators of recurrences, each defined once: schema, torch reference, fake and autograd.

As in `kernels.ops`, the reference is registered for every device, and backends register faster ones. What
arguments mean: `torchgguf.nn.recurrence`. The first output has the dtype of the values that are written into
the state, the second one is the state after the text. `*_backward` maps the gradients of both and all inputs
to the gradients of all arguments; it has no gradients itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchgguf.kernels.ops import LIBRARY
from torchgguf.kernels.recurrence import convolution, gated_delta, selective, state_space
from torchgguf.kernels.recurrence.checks import (
    check_causal_convolution,
    check_gated_delta_rule,
    check_selective_scan,
    check_state_space_scan,
)

# Of each recurrence: its arguments, which of them the output is like, the check of all, forward and backward.
RECURRENCES: dict[
    str, tuple[tuple[str, ...], int, Callable[..., None], Callable[..., Any], Callable[..., Any]]
]
RECURRENCES = {
    "gated_delta_rule": (
        ("query", "key", "value", "decay", "beta", "state"),
        2,
        check_gated_delta_rule,
        gated_delta.gated_delta_forward,
        gated_delta.gated_delta_backward,
    ),
    "selective_scan": (
        ("x", "step_size", "a", "b", "c", "state"),
        0,
        check_selective_scan,
        selective.selective_forward,
        selective.selective_backward,
    ),
    "state_space_scan": (
        ("x", "step_size", "a", "b", "c", "state"),
        0,
        check_state_space_scan,
        state_space.state_space_forward,
        state_space.state_space_backward,
    ),
}
RECURRENCE_REFERENCE: dict[str, Callable[..., Any]] = {}


def _without_autocast(state: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which products have the precision of the state, whatever the caller's context."""
    kind = state.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _define(
    name: str,
    names: tuple[str, ...],
    like: int,
    check: Callable[..., None],
    forward: Callable[..., tuple[Tensor, Tensor]],
    backward: Callable[..., tuple[Tensor, ...]],
) -> None:
    """Define the operators `name` and `name_backward`."""
    inputs = ", ".join(f"Tensor {each}" for each in names)
    grads = ", ".join("Tensor" for _ in names)
    LIBRARY.define(f"{name}({inputs}) -> (Tensor, Tensor)")
    LIBRARY.define(f"{name}_backward(Tensor grad_output, Tensor grad_state, {inputs}) -> ({grads})")

    def checked(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        check(*arguments)
        with _without_autocast(arguments[-1]):
            return forward(*arguments)

    def differentiated(*arguments: Tensor) -> tuple[Tensor, ...]:
        with _without_autocast(arguments[-1]):
            return backward(*arguments)

    def fake(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        check(*arguments)
        return arguments[like].new_empty(arguments[like].shape), arguments[-1].new_empty(arguments[-1].shape)

    def fake_backward(grad_output: Tensor, grad_state: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.new_empty(each.shape) for each in arguments)

    def remember(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx: Any, grad_output: Tensor, grad_state: Tensor) -> tuple[Tensor, ...]:
        function = getattr(torch.ops.torchgguf, f"{name}_backward")
        grads: tuple[Tensor, ...] = function(grad_output, grad_state, *ctx.saved_tensors)
        return grads

    qualified = f"torchgguf::{name}"
    for operator, implementation in ((name, checked), (f"{name}_backward", differentiated)):
        LIBRARY.impl(operator, implementation, "CompositeExplicitAutograd")
        RECURRENCE_REFERENCE[operator] = implementation
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    torch.library.register_fake(f"{qualified}_backward", fake_backward, lib=LIBRARY)
    torch.library.register_autograd(qualified, differentiate, setup_context=remember, lib=LIBRARY)


for _name, _row in RECURRENCES.items():
    _define(_name, *_row)


LIBRARY.define("causal_convolution(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")


def _causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    check_causal_convolution(x, weight, bias)
    return convolution.convolve(x, weight, bias)


LIBRARY.impl("causal_convolution", _causal_convolution, "CompositeExplicitAutograd")
RECURRENCE_REFERENCE["causal_convolution"] = _causal_convolution


@torch.library.register_fake("torchgguf::causal_convolution", lib=LIBRARY)
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    check_causal_convolution(x, weight, bias)
    return x.new_empty((*x.shape[:2], x.shape[2] - weight.shape[1] + 1))


def _remember_convolution(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight)


def _differentiate_convolution(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        padded = F.pad(grad, (weight.shape[1] - 1, weight.shape[1] - 1))
        grad_x = torch.ops.torchgguf.causal_convolution(padded, weight.flip(1))
    if ctx.needs_input_grad[1]:
        grad_weight = convolution.weight_gradient(grad, x).to(weight.dtype)
    if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
        grad_bias = grad.sum((0, 2)).to(ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias


torch.library.register_autograd(
    "torchgguf::causal_convolution",
    _differentiate_convolution,
    setup_context=_remember_convolution,
    lib=LIBRARY,
)
