"""Instructions of recorded plans on tensors."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

_native = pytest.importorskip("torchgguf._native")

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
ABSENT = (0, 0, (), ())


def described(tensor: Tensor | None) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """What the native part is told of a tensor."""
    if tensor is None:
        return ABSENT
    return tensor.data_ptr(), DTYPES.index(tensor.dtype), tuple(tensor.shape), tensor.stride()


def run(
    op: str,
    tensors: Sequence[Tensor | None],
    ints: Sequence[int] = (),
    floats: Sequence[float] = (),
    threads: int = 1,
) -> None:
    """Compute one instruction."""
    program = _native.Program()
    program.add(op, [described(tensor) for tensor in tensors], list(ints), list(floats))
    program.run(threads)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Make numbers that differ: some negative, and for integers some zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator) * 3
    return (
        values > 0
        if dtype == torch.bool
        else values.abs().to(dtype)
        if dtype == torch.uint8
        else values.to(dtype)
    )
