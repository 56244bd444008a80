"""Pack the weights of a matrix again after some of them changed, such as by a layer's adapter."""

import torch
from torch import Tensor

from torchgguf import kernels
from torchgguf.quants import QuantType
from torchgguf.quants.capacity import exceeds

_SLAB = 1 << 21  # weights that are compared at once: 8 MB in float32


def pack_changes(blocks: Tensor, kind: QuantType, weights: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return blocks of changed weights, of the type that they were in. Rows without changes keep their bytes.

    Rows are packed from float32, all columns of a row with the same importance.

    Args:
        blocks: uint8 `(..., rows, bytes_per_row)`; they stay as they are.
        kind: their type.
        weights: `(..., rows, columns)`, in any dtype.
        scale: a factor on what the blocks store: one for all, or one for each matrix `(...)`.

    Returns:
        The new blocks, or `blocks` itself if nothing changed.

    Raises:
        ValueError: weights are not finite, or too large for the type.
    """
    columns = weights.shape[-1]
    old, new = blocks.flatten(0, -2), weights.detach().reshape(-1, columns)
    factors = torch.ones(1) if scale is None else scale.detach().float().flatten()
    factors = factors.to(new.device).repeat_interleave(len(new) // len(factors)).unsqueeze(1)
    # Types of so few bits that llama-quantize refuses to pack without importances.
    importance = torch.ones(columns, device=new.device) if kind.needs_importance else None
    result: Tensor | None = None
    step = max(_SLAB // columns, 1)
    for start in range(0, len(new), step):
        rows = slice(start, start + step)
        part = new[rows].float()
        changed = (part != kernels.dequantize(old[rows], kind) * factors[rows]).any(dim=1)
        if not changed.any():
            continue
        numbers = part[changed] / factors[rows][changed]
        if exceeds(numbers, kind):
            raise ValueError(f"weights are too large for {kind.name}")
        if result is None:
            result = old.clone()
        result[rows][changed] = kernels.quantize(numbers, kind, importance)
    return blocks if result is None else result.view_as(blocks)
