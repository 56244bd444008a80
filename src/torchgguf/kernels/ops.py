"""The operators on packed weights, each defined once: schema, torch reference, fake and autograd.

The reference is registered for every device; backends (`cpu`) register faster implementations of the same
schemas. A packed weight is a uint8 tensor `(out_features, bytes_per_row)`, its type is a ggml id.

Shapes: `dequantize` (..., bytes) → (..., n); `quantize` the other way; `linear` (..., in_features) →
(..., out_features); `linear_backward` the other way, x · W instead of x · Wᵀ; `embedding` (...) →
(..., embedding_dim).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchgguf.kernels.checks import check_embedding, check_linear, row_length
from torchgguf.quants import quant_type
from torchgguf.quants.reference import EncodeRows, dequantize, encode_rows, packed_row_bytes, quantize

LIBRARY = torch.library.Library("torchgguf", "DEF")
LIBRARY.define("dequantize(Tensor packed, int quant_type, ScalarType dtype) -> Tensor")
LIBRARY.define("quantize(Tensor weights, int quant_type, Tensor? imatrix=None) -> Tensor")
LIBRARY.define("linear(Tensor input, Tensor weight, int quant_type, Tensor? bias=None) -> Tensor")
LIBRARY.define("linear_backward(Tensor grad_output, Tensor weight, int quant_type) -> Tensor")
LIBRARY.define("embedding(Tensor indices, Tensor weight, int quant_type, ScalarType dtype) -> Tensor")


def _dequantize(packed: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    row_length(packed, type_id)
    return dequantize(packed, type_id, dtype)


def quantize_with(encode: EncodeRows, weights: Tensor, type_id: int, imatrix: Tensor | None) -> Tensor:
    """Pack `weights`; `encode` packs their rows."""
    packed = quantize(weights, type_id, imatrix, encode)
    # The result of an operator must not share memory with its arguments.
    return packed.clone() if quant_type(type_id).dtype is weights.dtype else packed


def _quantize(weights: Tensor, type_id: int, imatrix: Tensor | None = None) -> Tensor:
    return quantize_with(encode_rows, weights, type_id, imatrix)


def _linear(input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None = None) -> Tensor:
    check_linear(input, weight, type_id, bias)
    decoded = dequantize(weight, type_id, input.dtype)
    return F.linear(input, decoded, None if bias is None else bias.to(input.dtype))


def _linear_backward(grad_output: Tensor, weight: Tensor, type_id: int) -> Tensor:
    check_linear(grad_output, weight, type_id, transposed=True)
    return grad_output @ dequantize(weight, type_id, grad_output.dtype)


def _embedding(indices: Tensor, weight: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    check_embedding(indices, weight, type_id)
    return dequantize(F.embedding(indices, weight), type_id, dtype)


REFERENCE: dict[str, Callable[..., Tensor]] = {
    "dequantize": _dequantize,
    "quantize": _quantize,
    "linear": _linear,
    "linear_backward": _linear_backward,
    "embedding": _embedding,
}
for _name, _reference in REFERENCE.items():
    LIBRARY.impl(_name, _reference, "CompositeExplicitAutograd")


@torch.library.register_fake("torchgguf::dequantize", lib=LIBRARY)
def _(packed: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    return packed.new_empty((*packed.shape[:-1], row_length(packed, type_id)), dtype=dtype)


@torch.library.register_fake("torchgguf::quantize", lib=LIBRARY)
def _(weights: Tensor, type_id: int, imatrix: Tensor | None = None) -> Tensor:
    size = packed_row_bytes(weights, quant_type(type_id), imatrix)
    return weights.new_empty((*weights.shape[:-1], size), dtype=torch.uint8)


@torch.library.register_fake("torchgguf::linear", lib=LIBRARY)
def _(input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None = None) -> Tensor:
    check_linear(input, weight, type_id, bias)
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


@torch.library.register_fake("torchgguf::linear_backward", lib=LIBRARY)
def _(grad_output: Tensor, weight: Tensor, type_id: int) -> Tensor:
    in_features = check_linear(grad_output, weight, type_id, transposed=True)
    return grad_output.new_empty((*grad_output.shape[:-1], in_features))


@torch.library.register_fake("torchgguf::embedding", lib=LIBRARY)
def _(indices: Tensor, weight: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    return weight.new_empty((*indices.shape, check_embedding(indices, weight, type_id)), dtype=dtype)


# Packed weights get no gradient; activations and biases do. linear and linear_backward are each other's
# derivative, so that gradients have gradients too.


def _remember_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, ctx.type_id, *bias = inputs
    ctx.bias_dtype = bias[0].dtype if bias and bias[0] is not None else None
    ctx.save_for_backward(weight)


def _differentiate_linear(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
    (weight,) = ctx.saved_tensors
    grad_input = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_input = torch.ops.torchgguf.linear_backward(grad, weight, ctx.type_id)
    if ctx.bias_dtype is not None and ctx.needs_input_grad[3]:
        grad_bias = grad.sum(tuple(range(grad.dim() - 1))).to(ctx.bias_dtype)
    return grad_input, None, None, grad_bias


def _differentiate_linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
    (weight,) = ctx.saved_tensors
    grad_input = None
    if ctx.needs_input_grad[0]:
        grad_input = torch.ops.torchgguf.linear(grad, weight, ctx.type_id)
    return grad_input, None, None


torch.library.register_autograd(
    "torchgguf::linear", _differentiate_linear, setup_context=_remember_weight, lib=LIBRARY
)
torch.library.register_autograd(
    "torchgguf::linear_backward", _differentiate_linear_backward, setup_context=_remember_weight, lib=LIBRARY
)
