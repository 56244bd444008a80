"""Operators that make tensors from numbers, the same ones in every step unless something writes into them."""

from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels.plan.building import Builder

_aten = torch.ops.aten


def _filled(value: float) -> Any:
    def row(builder: Builder, result: Tensor, *_: Any, **__: Any) -> None:
        builder.emit("fill", [result], [], floats=[value])

    return row


def _full(builder: Builder, result: Tensor, sizes: Any, value: float, **_: Any) -> None:
    builder.emit("fill", [result], [], floats=[float(value)])


def _fill(builder: Builder, result: Tensor, x: Tensor, value: float) -> None:
    builder.emit("fill", [builder.operand(x)], [], floats=[float(value)])


def _zero(builder: Builder, result: Tensor, x: Tensor) -> None:
    _fill(builder, result, x, 0.0)


def _arange(builder: Builder, result: Tensor, *bounds: Any, **_: Any) -> None:
    start, step = (0 if len(bounds) < 2 else bounds[0]), (bounds[2] if len(bounds) > 2 else 1)
    builder.emit("arange", [result], [], ints=[start, step])


def _empty(builder: Builder, result: Tensor, *_: Any, **__: Any) -> None:
    builder.made(result)


def _from_python(builder: Builder, result: Tensor, x: Tensor) -> None:
    builder.constant(result)


CREATIONS: dict[Any, Any] = {
    **dict.fromkeys((_aten.zeros.default, _aten.zeros_like.default, _aten.new_zeros.default), _filled(0.0)),
    **dict.fromkeys((_aten.ones.default, _aten.ones_like.default, _aten.new_ones.default), _filled(1.0)),
    **dict.fromkeys((_aten.full.default, _aten.full_like.default, _aten.new_full.default), _full),
    **dict.fromkeys((_aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default), _empty),
    **dict.fromkeys((_aten.arange.default, _aten.arange.start, _aten.arange.start_step), _arange),
    _aten.fill_.Scalar: _fill,
    _aten.zero_.default: _zero,
    _aten.lift_fresh.default: _from_python,
}
