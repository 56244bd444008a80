"""The product of a packed weight and an adapter, in one function with a gradient.

Shape letters: N rows of activations, I in_features, O out_features, r rank.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def adapted_linear(
    input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
) -> Tensor:
    """Return `linear(input, weight) + bias + scaling * b(a(input))`, `(..., O)`.

    Autograd alone would compute the same, but with more passes over memory: the adapter's product is added
    where the weight's is, in both directions. What it saves is the input and r numbers a row.

    Args:
        input: float32 `(..., I)`.
        weight: uint8 `(O, bytes_per_row)`.
        type_id: of the weight's blocks.
        bias: `(O,)`, without a gradient.
        a: float32 `(r, I)`.
        b: float32 `(O, r)`.
        scaling: factor on the product of the adapter.
    """
    rows = input.reshape(-1, input.shape[-1])
    output: Tensor = _AdaptedLinear.apply(rows, weight, type_id, bias, a, b, scaling)  # type: ignore[no-untyped-call]
    return output.view(*input.shape[:-1], -1)


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        type_id: int,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        low = rows @ a.t()  # (N, r)
        output: Tensor = torch.ops.torchgguf.linear.default(rows, weight, type_id, bias)
        output.addmm_(low, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.type_id, ctx.scaling = type_id, scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        needs_rows, _, _, _, needs_a, needs_b, _ = ctx.needs_input_grad
        grad_low = (grad @ b).mul_(ctx.scaling)
        grad_rows = None
        if needs_rows:
            grad_rows = torch.ops.torchgguf.linear_backward.default(grad, weight, ctx.type_id)
            grad_rows.addmm_(grad_low, a)
        grad_a = grad_low.t() @ rows if needs_a else None
        grad_b = (grad.t() @ low).mul_(ctx.scaling) if needs_b else None
        return grad_rows, None, None, None, grad_a, grad_b, None
