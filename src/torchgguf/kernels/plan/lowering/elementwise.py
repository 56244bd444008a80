"""Operators that compute number by number."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels.plan.building import Builder
from torchgguf.kernels.plan.program import Operand, PlanError

_aten = torch.ops.aten
Number = int | float | bool

# torch's names, by those of instructions where they differ.
_UNARY = (
    *("abs", "ceil", "cos", "erf", "exp", "expm1", "floor", "log", "log1p", "neg", "reciprocal", "relu"),
    *("round", "rsqrt", "sigmoid", "sign", "silu", "sin", "sqrt", "square", "tanh"),
)
_BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "div",
    "remainder": "remainder",
    "floor_divide": "floordiv",
    "eq": "eq",
    "ne": "ne",
    "lt": "lt",
    "le": "le",
    "gt": "gt",
    "ge": "ge",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "logical_and": "and",
    "logical_or": "or",
    "maximum": "max",
    "minimum": "min",
}
_TRUTH = ("logical_and", "logical_or")  # the same as of bits where all are bool


def _target(builder: Builder, result: Tensor, x: Any, in_place: bool) -> Tensor | Operand:
    return builder.operand(x) if in_place else result


def _unary(name: str, in_place: bool) -> Any:
    def row(builder: Builder, result: Tensor, x: Tensor) -> None:
        builder.emit(f"unary:{name}", [_target(builder, result, x, in_place)], [x])

    return row


def _binary(name: str, in_place: bool, only_bool: bool) -> Any:
    def row(builder: Builder, result: Tensor, a: Any, b: Any, alpha: Number = 1) -> None:
        if only_bool and not (a.dtype is b.dtype is torch.bool):
            raise PlanError("truth of numbers")
        write_binary(builder, name, _target(builder, result, a, in_place), a, b, alpha)

    return row


def write_binary(
    builder: Builder, name: str, result: Tensor | Operand, a: Any, b: Any, alpha: Number = 1
) -> None:
    """Write `result = a name b` down; one of both may be a Python number."""
    floats = [float(alpha)]
    inputs: list[Tensor | Operand] = []
    for each in (a, b):
        if isinstance(each, Tensor | Operand):
            inputs.append(each)
        else:
            inputs.append(builder.number(each))
            floats.append(float(each))
    builder.emit(f"binary:{name}", [result], inputs, floats=floats)


def _rsub(builder: Builder, result: Tensor, a: Tensor, b: Any, alpha: Number = 1) -> None:
    write_binary(builder, "sub", result, b, a, alpha)


def _pow(builder: Builder, result: Tensor, a: Any, b: Any) -> None:
    write_binary(builder, "pow", result, a, b)


def _not(builder: Builder, result: Tensor, x: Tensor) -> None:
    if x.dtype is not torch.bool:
        raise PlanError("bits of numbers")
    builder.emit("unary:not", [result], [x])


def _gelu(builder: Builder, result: Tensor, x: Tensor, approximate: str = "none") -> None:
    builder.emit("unary:gelu" if approximate == "none" else "unary:gelu_tanh", [result], [x])


def _softplus(builder: Builder, result: Tensor, x: Tensor, beta: Number = 1, threshold: Number = 20) -> None:
    builder.emit("unary:softplus", [result], [x], floats=[float(beta), float(threshold)])


def _addcmul(builder: Builder, result: Tensor, x: Tensor, a: Tensor, b: Tensor, value: Number = 1) -> None:
    builder.emit("addcmul", [result], [x, a, b], floats=[float(value)])


def _where(builder: Builder, result: Tensor, condition: Tensor, a: Any, b: Any) -> None:
    inputs: list[Tensor | Operand] = [condition]
    floats = []
    for each in (a, b):
        inputs.append(each if isinstance(each, Tensor) else builder.number(each))
        floats.append(0.0 if isinstance(each, Tensor) else float(each))
    builder.emit("where", [result], inputs, floats=floats)


def _masked_fill(in_place: bool) -> Any:
    def row(builder: Builder, result: Tensor, x: Tensor, mask: Tensor, value: Any) -> None:
        filling = value if isinstance(value, Tensor) else builder.number(value)
        floats = [0.0 if isinstance(value, Tensor) else float(value), 0.0]
        builder.emit("where", [_target(builder, result, x, in_place)], [mask, filling, x], floats=floats)

    return row


def _clamp(in_place: bool) -> Any:
    def row(
        builder: Builder, result: Tensor, x: Tensor, min: Number | None = None, max: Number | None = None
    ) -> None:
        write_clamp(builder, _target(builder, result, x, in_place), x, min, max)

    return row


def write_clamp(
    builder: Builder, result: Tensor | Operand, x: Tensor, low: Number | None, high: Number | None
) -> None:
    """Write a clamp by Python numbers down."""
    has = [int(low is not None), int(high is not None)]
    floats = [0.0 if bound is None else float(bound) for bound in (low, high)]
    builder.emit("clamp", [result], [x], has, floats)


def _clamp_min(builder: Builder, result: Tensor, x: Tensor, min: Number) -> None:
    write_clamp(builder, result, x, min, None)


def _clamp_max(builder: Builder, result: Tensor, x: Tensor, max: Number) -> None:
    write_clamp(builder, result, x, None, max)


def _clamp_by_tensors(
    builder: Builder, result: Tensor, x: Tensor, min: Tensor | None = None, max: Tensor | None = None
) -> None:
    if min is not None and max is not None:
        raise PlanError("a clamp by two tensors")
    write_binary(builder, "max" if max is None else "min", result, x, min if max is None else max)


def _hardtanh(builder: Builder, result: Tensor, x: Tensor, low: Number = -1, high: Number = 1) -> None:
    write_clamp(builder, result, x, low, high)


def _overloads(name: str) -> Iterator[Any]:
    """Iterate over an operator's overloads that return a new tensor."""
    if (packet := getattr(_aten, name, None)) is None:
        return
    yield from (getattr(packet, each) for each in packet.overloads() if "out" not in each)


def _simple() -> Iterator[tuple[Any, Any]]:
    for name in _UNARY:
        for suffix in ("", "_"):
            for overload in _overloads(name + suffix):
                yield overload, _unary(name, bool(suffix))
    for name, instruction in _BINARY.items():
        for suffix in ("", "_"):
            for overload in _overloads(name + suffix):
                yield overload, _binary(instruction, bool(suffix), name in _TRUTH)


ELEMENTWISE: dict[Any, Any] = {
    **dict(_simple()),
    _aten.__and__.Tensor: _binary("and", False, True),
    _aten.__or__.Tensor: _binary("or", False, True),
    _aten.__iand__.Tensor: _binary("and", True, True),
    _aten.__ior__.Tensor: _binary("or", True, True),
    _aten.addcmul.default: _addcmul,
    _aten.bitwise_not.default: _not,
    _aten.clamp.default: _clamp(False),
    _aten.clamp_.default: _clamp(True),
    _aten.clamp.Tensor: _clamp_by_tensors,
    _aten.clamp_max.default: _clamp_max,
    _aten.clamp_min.default: _clamp_min,
    _aten.gelu.default: _gelu,
    _aten.hardtanh.default: _hardtanh,
    _aten.logical_not.default: _not,
    _aten.masked_fill.Scalar: _masked_fill(False),
    _aten.masked_fill.Tensor: _masked_fill(False),
    _aten.masked_fill_.Scalar: _masked_fill(True),
    _aten.pow.Scalar: _pow,
    _aten.pow.Tensor_Scalar: _pow,
    _aten.pow.Tensor_Tensor: _pow,
    _aten.rsub.Scalar: _rsub,
    _aten.rsub.Tensor: _rsub,
    _aten.softplus.default: _softplus,
    _aten.where.Scalar: _where,
    _aten.where.ScalarOther: _where,
    _aten.where.ScalarSelf: _where,
    _aten.where.self: _where,
}
