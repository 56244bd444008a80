"""Products of matrices, plain and packed, and attention."""

from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels import ops as _ops  # noqa: F401 (defines the operators)
from torchgguf.kernels.plan.building import Builder, expanded, item, with_dimension
from torchgguf.kernels.plan.lowering.elementwise import write_binary
from torchgguf.kernels.plan.program import ITEM_SIZES, Operand, PlanError

_aten = torch.ops.aten
_packed = torch.ops.torchgguf

_PLAIN = -1  # the type of a weight that is not packed
# Of more rows the operator decodes the weight first: such steps are no matter of overhead.
_MOST_ROWS = 16


def _linear(builder: Builder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    if weight.stride(1) == 1:
        _write_linear(builder, result, x, weight, bias, _PLAIN)
        return
    rows = x.reshape(-1, x.shape[-1])
    builder.made(result)
    product = builder.operand(result.view(len(rows), -1))
    builder.emit("matmul", [product], [rows, weight.t()])
    if bias is not None:
        write_binary(builder, "add", product, product, builder.operand(bias))


def _packed_linear(
    builder: Builder, result: Tensor, x: Tensor, weight: Tensor, kind: int, bias: Tensor | None = None
) -> None:
    if x.numel() // x.shape[-1] > _MOST_ROWS:
        raise PlanError(f"products of more than {_MOST_ROWS} rows")
    _write_linear(builder, result, x, weight, bias, kind)


def _write_linear(
    builder: Builder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, kind: int
) -> None:
    matrix = builder.operand(weight)
    origin = builder.selected.get(matrix.memory)
    if origin is None or (index := _place_in(builder, matrix, *origin)) is None:
        builder.emit("linear", [result], [x, matrix, bias], [1, kind])
    else:
        builder.emit("linear_indexed", [result], [x, origin[0], index, None], [kind])
        if bias is not None:  # that of one expert, where the instruction would choose from those of all
            product = builder.operand(result)
            write_binary(builder, "add", product, product, bias)


def _place_in(builder: Builder, matrix: Operand, source: Operand, index: Operand) -> Operand | None:
    """Return the element of `index` that chose a matrix, one of a stack that was chosen from a stack."""
    size = source.sizes[1] * source.sizes[2] * ITEM_SIZES[source.dtype]
    if matrix.offset % size or matrix.sizes != source.sizes[1:] or matrix.strides != source.strides[1:]:
        return None
    return item(index, 0, matrix.offset // size)


def _matmul(builder: Builder, result: Tensor, a: Tensor, b: Tensor) -> None:
    product = builder.made(result)
    one, two = builder.operand(a), builder.operand(b)
    if a.dim() == 1:
        one, product = with_dimension(one, 0), with_dimension(product, max(0, result.dim() - (b.dim() > 1)))
    if b.dim() == 1:
        two, product = with_dimension(two, 1), with_dimension(product, len(product.sizes))
    batch = product.sizes[:-2]
    one, two = expanded(one, (*batch, *one.sizes[-2:])), expanded(two, (*batch, *two.sizes[-2:]))
    builder.emit("matmul", [product], [one, two])


def _addmm(
    builder: Builder, result: Tensor, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
) -> None:
    if beta != 1 or alpha != 1:
        raise PlanError("a product with factors")
    _matmul(builder, result, a, b)
    product = builder.operand(result)
    write_binary(builder, "add", product, product, bias)


def _attention(
    builder: Builder,
    result: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    if dropout or (is_causal and query.shape[2] > 1):
        raise PlanError("attention of several new positions without a mask")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    builder.emit("attention", [result], [query, key, value, mask, None], floats=[factor, 0.0])


def _embedding(builder: Builder, result: Tensor, weight: Tensor, indices: Tensor, *_: Any) -> None:
    builder.emit("embedding", [result], [indices, weight], [_PLAIN])


def _packed_embedding(
    builder: Builder, result: Tensor, indices: Tensor, weight: Tensor, kind: int, dtype: torch.dtype
) -> None:
    builder.emit("embedding", [result], [indices, weight], [kind])


PRODUCTS: dict[Any, Any] = {
    _aten.linear.default: _linear,
    _packed.linear.default: _packed_linear,
    **dict.fromkeys((_aten.matmul.default, _aten.mm.default, _aten.bmm.default), _matmul),
    _aten.addmm.default: _addmm,
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.embedding.default: _embedding,
    _packed.embedding.default: _packed_embedding,
}
