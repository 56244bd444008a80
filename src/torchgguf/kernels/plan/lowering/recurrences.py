"""The recurrences of `kernels.recurrence`, which read contiguous numbers in float32."""

from typing import Any

import torch
from torch import Tensor

from torchgguf.kernels.plan.building import Builder
from torchgguf.kernels.plan.program import PlanError
from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)

_packed = torch.ops.torchgguf


def _recurrence(name: str) -> Any:
    def row(builder: Builder, result: tuple[Tensor, Tensor], *arguments: Tensor) -> None:
        if any(each.dtype is torch.float64 for each in arguments) or result[0].dtype is not torch.float32:
            raise PlanError(f"{name} in {result[0].dtype}")
        builder.emit(name, result, [builder.contiguous(each, torch.float32) for each in arguments])

    return row


def _convolution(
    builder: Builder, result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> None:
    plain = [None if each is None else builder.contiguous(each, torch.float32) for each in (x, weight, bias)]
    builder.emit("causal_convolution", [result], plain)


RECURRENCE_ROWS: dict[Any, Any] = {
    **{
        getattr(_packed, name).default: _recurrence(name)
        for name in ("gated_delta_rule", "selective_scan", "state_space_scan")
    },
    _packed.causal_convolution.default: _convolution,
}
