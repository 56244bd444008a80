"""Operators that return views, and those that may return either a view or a copy."""

from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels.plan.building import Builder

_aten = torch.ops.aten

VIEWS: frozenset[Any] = frozenset(
    {
        _aten.alias.default,
        _aten.as_strided.default,
        _aten.chunk.default,
        _aten.detach.default,
        _aten.detach_.default,
        _aten.diagonal.default,
        _aten.expand.default,
        _aten.expand_as.default,
        _aten.movedim.int,
        _aten.movedim.intlist,
        _aten.narrow.default,
        _aten.permute.default,
        _aten.promote_types.default,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.split.Tensor,
        _aten.split.sizes,
        _aten.split_with_sizes.default,
        _aten.squeeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.swapaxes.default,
        _aten.t.default,
        _aten.transpose.int,
        _aten.unbind.int,
        _aten.unflatten.int,
        _aten.unsqueeze.default,
        _aten.view.default,
        _aten.view_as.default,
    }
)


def _copy_unless_alias(builder: Builder, result: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    if not builder.alias(result, x):
        builder.emit("copy", [result if result.shape == x.shape else _shaped(builder, result, x)], [x])


def _shaped(builder: Builder, result: Tensor, x: Tensor) -> Any:
    """Return a result, which is contiguous, in the shape of what was copied."""
    builder.made(result)
    return builder.operand(result.view(x.shape))


def _clone(builder: Builder, result: Tensor, x: Tensor, **_: Any) -> None:
    builder.emit("copy", [result], [x])


def _copy_into(builder: Builder, result: Tensor, x: Tensor, source: Tensor, *_: Any) -> None:
    builder.emit("copy", [builder.operand(x)], [source])


def _cat(builder: Builder, result: Tensor, tensors: list[Tensor], dim: int = 0) -> None:
    builder.emit("cat", [result], [x for x in tensors if x.numel()], [dim % result.dim()])


def _stack(builder: Builder, result: Tensor, tensors: list[Tensor], dim: int = 0) -> None:
    dim %= result.dim()
    builder.emit("cat", [result], [x.unsqueeze(dim) for x in tensors], [dim])


def _roll(builder: Builder, result: Tensor, x: Tensor, shifts: list[int], dims: list[int]) -> None:
    ((shift,), (dim,)) = shifts, dims
    first = -shift % x.shape[dim]
    parts = [x.narrow(dim, first, x.shape[dim] - first), x.narrow(dim, 0, first)]
    builder.emit("cat", [result], [part for part in parts if part.numel()], [dim % x.dim()])


def _repeat_interleave(
    builder: Builder, result: Tensor, x: Tensor, repeats: int, dim: int | None = None, **_: Any
) -> None:
    x, dim = (x.flatten(), 0) if dim is None else (x, dim % x.dim())
    each = x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], repeats, *x.shape[dim + 1 :])
    builder.emit("copy", [_shaped(builder, result, each)], [each])


COPIES: dict[Any, Any] = {
    **dict.fromkeys(
        (
            _aten._to_copy.default,
            _aten.contiguous.default,
            _aten.flatten.using_ints,
            _aten.reshape.default,
            _aten.to.device,
            _aten.to.dtype,
            _aten.to.dtype_layout,
            _aten.to.other,
            _aten.type_as.default,
        ),
        _copy_unless_alias,
    ),
    _aten.dropout.default: _copy_unless_alias,
    _aten.clone.default: _clone,
    _aten.copy_.default: _copy_into,
    _aten.cat.default: _cat,
    _aten.stack.default: _stack,
    _aten.roll.default: _roll,
    _aten.repeat_interleave.self_int: _repeat_interleave,
}
