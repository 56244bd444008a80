"""Quantization types: how GGUF stores weights in blocks, and how to unpack them. One class a type.

Users call `quantize` and `dequantize` here, which compute with the operators of `torchgguf.kernels`: natively
where they can. `torchgguf.quants.reference` has the same in torch alone. The kernels stand above this layer,
which must not import them, so the first call looks them up.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from torchgguf.quants import fp4, i_quants, k_quants, legacy, plain, ternary  # noqa: F401 (registers the types)
from torchgguf.quants.base import QuantType, QuantTypeLike, quant_type, quant_types
from torchgguf.quants.reference import unpacked_row_length

__all__ = ["QuantType", "QuantTypeLike", "dequantize", "quant_type", "quant_types", "quantize"]


@cache
def _kernels() -> Any:
    return import_module("torchgguf.kernels")


def dequantize(packed: Tensor, type: QuantTypeLike, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack a tensor, on the device where it is.

    Args:
        packed: uint8 (..., bytes of a row); for a plain type also the numbers themselves.
        type: the type of the blocks.
        dtype: float32 as ggml unpacks it to the last bit, or another dtype, to which that is rounded.

    Returns:
        (..., weights of a row).

    Raises:
        TypeError: `packed` is not uint8.
        ValueError: the rows are not whole blocks, `packed` is a single number, or the type is unknown.
    """
    kind = quant_type(type)
    if kind.dtype is not None and packed.dtype == kind.dtype:
        return packed.to(dtype)
    unpacked_row_length(packed, kind)
    weights: Tensor = _kernels().dequantize(packed, kind, dtype)
    return weights


def quantize(weights: Tensor, type: QuantTypeLike, imatrix: Tensor | None = None) -> Tensor:
    """Pack a tensor, on the device where it is.

    Args:
        weights: (..., k), finite; a plain type takes any, which are cast to it.
        type: the type to pack to.
        imatrix: the importance of each column, (k,): the mean of the squares of the activations that multiply
            it, in any unit. Packing then minimizes the error so weighted, else the plain one. For the
            matrices of experts, weights (experts, rows, k), also (experts, k). Q8_0 and the plain types
            ignore it.

    Returns:
        uint8 (..., bytes of a row).

    Raises:
        ValueError: importances that are not finite or below zero, or of another length; rows that are not
            whole blocks; IQ2_XXS, IQ2_XS and IQ1_S without importances; weights that are not finite.
    """
    packed: Tensor = _kernels().quantize(weights, type, imatrix)
    return packed
