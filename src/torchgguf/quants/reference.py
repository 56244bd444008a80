"""Whole tensors packed and unpacked in torch, on any device: what every kernel is tested against."""

from typing import Protocol

import torch
from torch import Tensor

from torchgguf.quants.base import QuantType, QuantTypeLike, quant_type

# Blocks are decoded and encoded a few at a time so that the temporaries stay small and in the cache.
_WEIGHTS_AT_ONCE = 1 << 20

# In units of the mean importance. So little changes no choice between weights that do count.
_LEAST_IMPORTANCE = 1e-6


class EncodeRows(Protocol):
    """A way to pack rows."""

    def __call__(self, kind: QuantType, rows: Tensor, importance: Tensor | None, packed: Tensor) -> None:
        """Pack rows, float32 (n, k), finite and contiguous, into `packed`, uint8 (n, bytes of a row)."""


def dequantize(packed: Tensor, type: QuantTypeLike, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack a tensor as `torchgguf.quants.dequantize` does, in torch."""
    kind = quant_type(type)
    if kind.dtype is not None and packed.dtype == kind.dtype:
        return packed.to(dtype)
    shape = (*packed.shape[:-1], unpacked_row_length(packed, kind))
    blocks = packed.reshape(packed.numel() // kind.type_size, kind.type_size)
    weights = torch.empty(len(blocks), kind.block_size, dtype=dtype, device=packed.device)
    step = _WEIGHTS_AT_ONCE // kind.block_size
    for start in range(0, len(blocks), step):
        weights[start : start + step] = kind.decode(blocks[start : start + step])
    return weights.view(shape)


def unpacked_row_length(packed: Tensor, kind: QuantType) -> int:
    """Return the weights in a row of `packed`.

    Raises:
        TypeError: `packed` is not uint8.
        ValueError: it is a single number, or the rows are not whole blocks.
    """
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed {kind.name} weights must be a uint8 tensor, not {packed.dtype}")
    if packed.dim() == 0:
        raise ValueError(f"packed {kind.name} weights must have a dimension, got a single number")
    return kind.weights_per_row(packed.shape[-1])


def encode_rows(kind: QuantType, rows: Tensor, importance: Tensor | None, packed: Tensor) -> None:
    """Pack rows in torch, an `EncodeRows`."""
    columns = None if importance is None else importance.expand(rows.shape).reshape(-1, kind.block_size)
    packed.copy_(kind.encode(rows.reshape(-1, kind.block_size), columns).view(packed.shape))


def quantize(
    weights: Tensor, type: QuantTypeLike, imatrix: Tensor | None = None, encode: EncodeRows = encode_rows
) -> Tensor:
    """Pack a tensor as `torchgguf.quants.quantize` does; `encode` packs its rows."""
    kind = quant_type(type)
    size = packed_row_bytes(weights, kind, imatrix)
    columns = weights.shape[-1]
    if kind.dtype is not None:
        return kind.encode(weights.reshape(-1, 1)).reshape(*weights.shape[:-1], size)
    packed = torch.empty(*weights.shape[:-1], size, dtype=torch.uint8, device=weights.device)
    if imatrix is not None and imatrix.dim() == 2 and weights.shape[:-2] == imatrix.shape[:1]:
        for matrix, own, target in zip(weights, imatrix, packed, strict=True):
            _encode_matrix(kind, matrix, _importance(own, columns, weights.device), target, encode)
    else:
        importance = None if imatrix is None else _importance(imatrix, columns, weights.device)
        rows = weights.reshape(weights.numel() // max(columns, 1), columns)
        _encode_matrix(kind, rows, importance, packed.view(len(rows), size), encode)
    return packed


def packed_row_bytes(weights: Tensor, kind: QuantType, imatrix: Tensor | None) -> int:
    """Return the bytes of a packed row of `weights`.

    Raises:
        ValueError: the rows are not whole blocks, or the type needs importances.
    """
    if weights.dim() == 0:
        raise ValueError("weights must have a dimension, got a single number")
    size = kind.bytes_per_row(weights.shape[-1])
    if kind.needs_importance and imatrix is None:
        raise ValueError(f"packing to {kind.name} needs an importance matrix; pass imatrix=")
    return size


def _encode_matrix(
    kind: QuantType, rows: Tensor, importance: Tensor | None, packed: Tensor, encode: EncodeRows
) -> None:
    """Pack rows (n, k) into `packed`, uint8 (n, bytes of a row), a few at a time."""
    if not rows.numel():
        return
    step = max(_WEIGHTS_AT_ONCE // rows.shape[1], 1)
    for part, target in zip(rows.split(step), packed.split(step), strict=True):
        numbers = part.float().contiguous()
        if not all(end.isfinite() for end in numbers.aminmax()):
            raise ValueError(f"weights that are infinite or not a number cannot be packed to {kind.name}")
        encode(kind, numbers, importance, target)


def _importance(imatrix: Tensor, columns: int, device: torch.device) -> Tensor:
    """Return checked importances in units of their mean, all above zero.

    A column that never counted in the data may count elsewhere.
    """
    if imatrix.shape != (columns,):
        raise ValueError(
            f"weights of {columns} columns need that many importances, not {tuple(imatrix.shape)}"
        )
    importance = imatrix.to(device, torch.float32).contiguous()
    if not (importance.isfinite() & (importance >= 0)).all():
        raise ValueError("importances must be finite and not below zero")
    mean = importance.double().mean().float()
    return (importance / mean).clamp(min=_LEAST_IMPORTANCE) if mean > 0 else torch.ones_like(importance)
