"""In which precision many rows of activations are multiplied with an unpacked weight."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchgguf._extension import native
from torchgguf.quants import quant_type

_forced: torch.dtype | None = None


def set_matmul_dtype(dtype: torch.dtype | None) -> None:
    """Say how many rows are multiplied with a weight: in torch.float32, torch.bfloat16, or None to choose.

    Left to choose, it is BF16 where the CPU multiplies BF16 in hardware and the weight's type is a packed
    one. That rounds activations, decoded weights and products to eight significant bits (sums are kept in
    FP32) and costs the models of the benchmarks 0.0004 to 0.0007 of KL divergence, a quarter of what 8-bit
    activations cost them. FP32 is up to seven times slower.
    """
    global _forced
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise ValueError(f"matrices are multiplied in float32 or bfloat16, not {dtype}")
    _forced = dtype


@contextmanager
def multiplying_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Within the `with` statement, be as `set_matmul_dtype(dtype)` makes it; then as before."""
    before = _forced
    set_matmul_dtype(dtype)
    try:
        yield
    finally:
        set_matmul_dtype(before)


def matmul_dtype(type_id: int) -> torch.dtype:
    """Return the precision in which `linear` multiplies many rows with a weight of this type."""
    if _forced is not None:
        return _forced
    kind = quant_type(type_id)
    coarse = kind.dtype is None or kind.dtype is torch.bfloat16
    return torch.bfloat16 if coarse and native is not None and native.has_native_bf16() else torch.float32
