"""Operators that choose places by the values of tensors."""

from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels.plan.building import Builder
from torchgguf.kernels.plan.program import PlanError

_aten = torch.ops.aten


def _index_select(builder: Builder, result: Tensor, x: Tensor, dim: int, index: Tensor) -> None:
    dim %= x.dim()
    source, places = builder.operand(x), builder.operand(index)
    builder.emit("index_select", [result], [source, places], [dim])
    if dim == 0 and x.dim() == 3 and x.is_contiguous() and result.numel():
        builder.selected[builder.operand(result).memory] = source, places


def _gather(builder: Builder, result: Tensor, x: Tensor, dim: int, index: Tensor, **_: Any) -> None:
    builder.emit("gather", [result], [x, index], [dim % x.dim()])


def _index(builder: Builder, result: Tensor, x: Tensor, indices: list[Tensor | None]) -> None:
    (index,) = (each for each in indices if each is not None) if len(indices) == 1 else (None,)
    if index is None or index.dtype is not torch.int64 or not index.is_contiguous():
        raise PlanError("an index of several dimensions")
    builder.made(result)
    chosen = builder.operand(result.view(index.numel(), *x.shape[1:]))
    builder.emit("index_select", [chosen], [x, index.view(-1)], [0])


def _index_copy(builder: Builder, result: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor) -> None:
    if x.numel():
        builder.emit("index_copy", [builder.operand(x)], [source, index], [dim % x.dim()])


def _scatter(in_place: bool, has_source: bool) -> Any:
    def row(builder: Builder, result: Tensor, x: Tensor, dim: int, index: Tensor, value: Any) -> None:
        if in_place:
            target = builder.operand(x)
        else:
            builder.emit("copy", [result], [x])
            target = builder.operand(result)
        inputs, floats = ([index, value], []) if has_source else ([index, None], [float(value)])
        builder.emit("scatter", [target], inputs, [dim % x.dim()], floats)

    return row


def _topk(
    builder: Builder,
    result: tuple[Tensor, Tensor],
    x: Tensor,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
) -> None:
    builder.emit("topk", result, [x], [k, dim % x.dim(), int(largest), int(sorted)])


def _argsort(builder: Builder, result: Tensor, x: Tensor, *_: Any, dim: int = -1, **__: Any) -> None:
    if x.shape[dim] != 1:
        raise PlanError("sorting")
    builder.emit("fill", [result], [], floats=[0.0])


INDEXING: dict[Any, Any] = {
    _aten.index_select.default: _index_select,
    _aten.gather.default: _gather,
    _aten.index.Tensor: _index,
    _aten.index_copy_.default: _index_copy,
    _aten.scatter.value: _scatter(False, False),
    _aten.scatter.src: _scatter(False, True),
    _aten.scatter_.value: _scatter(True, False),
    _aten.scatter_.src: _scatter(True, True),
    _aten.topk.default: _topk,
    _aten.argsort.stable: _argsort,
    _aten.argsort.default: _argsort,
}
