"""What instructions mean, each by torch: the reference that the native executor is tested against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.kernels.plan.program import Instruction

Tensors = Sequence[Tensor | None]

_UNARY: dict[str, Callable[..., Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "not": torch.logical_not,
    "relu": F.relu,
    "silu": F.silu,
    "softplus": F.softplus,
}
_BINARY: dict[str, Callable[..., Tensor]] = {
    "and": torch.bitwise_and,
    "div": torch.div,
    "floordiv": torch.floor_divide,
    "gelu_mul": lambda a, b: F.gelu(a) * b,
    "gelu_tanh_mul": lambda a, b: F.gelu(a, approximate="tanh") * b,
    "max": torch.maximum,
    "min": torch.minimum,
    "mul": torch.mul,
    "or": torch.bitwise_or,
    "silu_mul": lambda a, b: F.silu(a) * b,
}
_REDUCE: dict[str, Callable[..., Tensor]] = {"max": torch.amax, "min": torch.amin}


def _unary(name: str, tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    function = _UNARY.get(name) or getattr(torch, name)
    return function(tensors[1], *floats)


def _binary(name: str, tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    alpha, *scalars = floats
    a, b = (scalars[0] if each is None else each for each in tensors[1:])
    if name in ("add", "sub"):
        a = a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=b.dtype)  # type: ignore[union-attr]
        return getattr(torch, name)(a, b, alpha=alpha) if alpha != 1 else getattr(torch, name)(a, b)
    return (_BINARY.get(name) or getattr(torch, name))(a, b)


def _reduce(name: str, tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    out, x = tensors
    assert out is not None
    assert x is not None
    keepdim = out.dim() == x.dim()
    if x.dim() == 0:
        return x
    if name in ("any", "all"):
        for dim in sorted(ints, reverse=True):
            x = getattr(torch, name)(x, dim, keepdim=keepdim)
        return x
    return (_REDUCE.get(name) or getattr(torch, name))(x, list(ints), keepdim=keepdim)


def _where(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    out, condition, *values = tensors
    a, b = (number if each is None else each for each, number in zip(values, floats, strict=True))
    return torch.where(condition, a, b).to(out.dtype)  # type: ignore[union-attr,arg-type]


def _clamp(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    low, high = (bound if has else None for has, bound in zip(ints, floats, strict=True))
    return torch.clamp(tensors[1], low, high)  # type: ignore[arg-type]


def _norm(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    _, x, weight, _ = tensors
    return F.rms_norm(x, x.shape[-1:], weight, floats[0])  # type: ignore[union-attr,arg-type]


def _layer_norm(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    _, x, weight, bias = tensors
    return F.layer_norm(x, x.shape[-1:], weight, bias, floats[0])  # type: ignore[union-attr,arg-type]


def _added(norm: Callable[..., Any]) -> Callable[..., Any]:
    """Return the norm of a sum, and the sum."""

    def run(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
        out, _, x, added, weight, bias = tensors
        total = x + added  # type: ignore[operator]
        return norm((out, total, weight, bias), ints, floats), total

    return run


def _rope(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    _, x, cos, sin = tensors
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)  # type: ignore[operator,union-attr,arg-type]


def _product(x: Any, weight: Any, bias: Any, kind: int) -> Tensor:
    if kind < 0:
        return F.linear(x, weight, bias)
    result: Tensor = torch.ops.torchgguf.linear(x, weight, kind, bias)
    return result


def _linear(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    n, *kinds = ints
    x, weights, biases = tensors[n], tensors[n + 1 : 2 * n + 1], tensors[2 * n + 1 :]
    return [_product(x, *each) for each in zip(weights, biases, kinds, strict=True)]


def _linear_indexed(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    _, x, weights, index, bias = tensors
    return _product(x, weights[int(index)], bias, ints[0])  # type: ignore[index,arg-type]


def _attention(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    _, query, key, value, mask, _ = tensors
    assert query is not None
    assert key is not None
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query,
        key,
        value,  # type: ignore[arg-type]
        attn_mask=mask,
        scale=floats[0],
        enable_gqa=grouped,
    )


def _embedding(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    out, indices, weight = tensors
    if ints[0] < 0:
        return F.embedding(indices, weight)  # type: ignore[arg-type]
    return torch.ops.torchgguf.embedding(indices, weight, ints[0], out.dtype)  # type: ignore[union-attr]


def _index_copy(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    out, source, index = tensors
    out.index_copy_(ints[0], index, source)  # type: ignore[union-attr,arg-type]


def _scatter(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    target, index, source = tensors
    arguments: tuple[Any, ...] = (ints[0], index, floats[0] if source is None else source)
    target.scatter_(*arguments)  # type: ignore[union-attr]


def _arange(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
    (out,) = tensors
    start, step = ints
    return torch.arange(start, start + step * out.numel(), step)  # type: ignore[union-attr]


def _dim_first(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tensors, ints, floats: function(tensors[1], ints[0])


def _arg(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def run(tensors: Tensors, ints: Sequence[int], floats: Sequence[float]) -> Any:
        out, x = tensors
        return function(x, ints[0], keepdim=out.dim() == x.dim())  # type: ignore[union-attr]

    return run


_OPS: dict[str, Callable[..., Any]] = {
    "addcmul": lambda t, ints, floats: torch.addcmul(t[1], t[2], t[3], value=floats[0]),
    "arange": _arange,
    "argmax": _arg(torch.argmax),
    "attention": _attention,
    "cat": lambda t, ints, floats: torch.cat([*t[1:]], ints[0]),
    "causal_convolution": lambda t, ints, floats: torch.ops.torchgguf.causal_convolution(*t[1:]),
    "clamp": _clamp,
    "copy": lambda t, ints, floats: t[1],
    "cumsum": _dim_first(torch.cumsum),
    "embedding": _embedding,
    "fill": lambda t, ints, floats: torch.full((), floats[0]),
    "gated_delta_rule": lambda t, ints, floats: torch.ops.torchgguf.gated_delta_rule(*t[2:]),
    "gather": lambda t, ints, floats: torch.gather(t[1], ints[0], t[2]),
    "index_copy": _index_copy,
    "index_select": lambda t, ints, floats: torch.index_select(t[1], ints[0], t[2]),
    "layer_norm": _layer_norm,
    "linear": _linear,
    "linear_indexed": _linear_indexed,
    "log_softmax": _dim_first(torch.log_softmax),
    "matmul": lambda t, ints, floats: torch.matmul(t[1], t[2]),
    "rms_norm": _norm,
    "rope": _rope,
    "scatter": _scatter,
    "selective_scan": lambda t, ints, floats: torch.ops.torchgguf.selective_scan(*t[2:]),
    "softmax": _dim_first(torch.softmax),
    "state_space_scan": lambda t, ints, floats: torch.ops.torchgguf.state_space_scan(*t[2:]),
    "topk": lambda t, ints, floats: torch.topk(t[2], ints[0], ints[1], bool(ints[2]), bool(ints[3])),
    "where": _where,
}
_OPS |= {"layer_norm:add": _added(_layer_norm), "rms_norm:add": _added(_norm)}
_FAMILIES = {"binary": _binary, "reduce": _reduce, "unary": _unary}


def run_instruction(instruction: Instruction, tensors: Tensors) -> None:
    """Do what an instruction says.

    Args:
        instruction: the instruction.
        tensors: its outputs, which are written into, then its inputs; None where one is absent.
    """
    family, _, name = instruction.op.partition(":")
    if family in _FAMILIES:
        result = _FAMILIES[family](name, tensors, instruction.ints, instruction.floats)
    else:
        result = _OPS[instruction.op](tensors, instruction.ints, instruction.floats)
    if result is None:  # in place
        return
    results = [result] if isinstance(result, Tensor) else result
    for out, each in zip(tensors, results, strict=False):
        assert out is not None
        out.copy_(each)
