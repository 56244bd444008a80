"""Operators that compute along dimensions: sums, extremes, norms, softmax."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels.plan.building import Builder
from torchgguf.kernels.plan.lowering.elementwise import write_binary
from torchgguf.kernels.plan.program import PlanError

_aten = torch.ops.aten


def _dims(x: Tensor, dim: int | Sequence[int] | None) -> list[int]:
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        return list(range(x.dim()))
    return sorted(each % x.dim() for each in ([dim] if isinstance(dim, int) else dim))


def _reduce(name: str) -> Any:
    def row(
        builder: Builder, result: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any
    ) -> None:
        builder.emit(f"reduce:{name}", [result], [x], _dims(x, dim))

    return row


def _max_dim(name: str) -> Any:
    def row(
        builder: Builder, result: tuple[Tensor, Tensor], x: Tensor, dim: int, keepdim: bool = False
    ) -> None:
        values, indices = result
        builder.emit(f"reduce:{name}", [values], [x], [dim % x.dim()])
        builder.emit(f"arg{name}", [indices], [x], [dim % x.dim()])

    return row


def _argmax(
    builder: Builder, result: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False
) -> None:
    if dim is None:
        raise PlanError("argmax over all dimensions")
    builder.emit("argmax", [result], [x], [dim % x.dim()])


def _std_mean(
    builder: Builder,
    result: tuple[Tensor, Tensor],
    x: Tensor,
    dim: Any = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> None:
    deviation, mean = result
    dims = _dims(x, dim)
    kept = [1 if i in dims else size for i, size in enumerate(x.shape)]
    spread, squares = (builder.temporary(x.shape, x.dtype) for _ in range(2))
    total = builder.temporary(kept, x.dtype)
    middle = builder.temporary(kept, x.dtype)
    builder.emit("reduce:mean", [middle], [x], dims)
    write_binary(builder, "sub", spread, x, middle)
    builder.emit("unary:square", [squares], [spread])
    builder.emit("reduce:sum", [total], [squares], dims)
    count = prod(x.shape[i] for i in dims) - (1.0 if correction is None else correction)
    write_binary(builder, "div", total, total, float(count))
    builder.emit("unary:sqrt", [total], [total])
    builder.emit("copy", [deviation], [_squeezed(total, deviation)])
    builder.emit("copy", [mean], [_squeezed(middle, mean)])


def _squeezed(kept: Any, like: Tensor) -> Any:
    strides = [stride for size, stride in zip(kept.sizes, kept.strides, strict=True) if size != 1]
    sizes = [size for size in like.shape if size != 1]
    if like.shape == kept.sizes:
        return kept
    if len(sizes) != like.dim():
        raise PlanError("a deviation along dimensions of size 1")
    return kept._replace(sizes=tuple(sizes), strides=tuple(strides))


def _softmax(name: str) -> Any:
    def row(builder: Builder, result: Tensor, x: Tensor, dim: int, *_: Any, **__: Any) -> None:
        builder.emit(name, [result], [x], [dim % x.dim()])

    return row


def _along_last(x: Tensor, shape: Sequence[int]) -> None:
    if list(shape) != [x.shape[-1]]:
        raise PlanError("a norm of several dimensions")


def _rms_norm(
    builder: Builder,
    result: Tensor,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> None:
    _along_last(x, shape)
    epsilon = torch.finfo(x.dtype).eps if eps is None else eps
    builder.emit("rms_norm", [result], [x, weight, None], floats=[epsilon])


def _layer_norm(
    builder: Builder,
    result: Tensor,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> None:
    _along_last(x, shape)
    builder.emit("layer_norm", [result], [x, weight, bias], floats=[eps])


def _cumsum(builder: Builder, result: Tensor, x: Tensor, dim: int, **_: Any) -> None:
    builder.emit("cumsum", [result], [x], [dim % x.dim()])


REDUCTIONS: dict[Any, Any] = {
    **dict.fromkeys((_aten.sum.default, _aten.sum.dim_IntList), _reduce("sum")),
    **dict.fromkeys((_aten.mean.default, _aten.mean.dim), _reduce("mean")),
    **dict.fromkeys((_aten.max.default, _aten.amax.default), _reduce("max")),
    **dict.fromkeys((_aten.min.default, _aten.amin.default), _reduce("min")),
    **dict.fromkeys((_aten.all.default, _aten.all.dim), _reduce("all")),
    **dict.fromkeys((_aten.any.default, _aten.any.dim), _reduce("any")),
    **dict.fromkeys((_aten.softmax.int, _aten._softmax.default), _softmax("softmax")),
    **dict.fromkeys((_aten.log_softmax.int, _aten._log_softmax.default), _softmax("log_softmax")),
    _aten.max.dim: _max_dim("max"),
    _aten.argmax.default: _argmax,
    _aten.std_mean.correction: _std_mean,
    _aten.rms_norm.default: _rms_norm,
    _aten.layer_norm.default: _layer_norm,
    _aten.cumsum.default: _cumsum,
}
