"""Factors on products, which GGUF files may contain beside a matrix: `blk.0.ffn_up.scale` is one.

Files made from NVFP4 checkpoints have them, as blocks of that type span a small range only. Experts have one
each.
"""

import torch
from torch import Tensor

from torchgguf import kernels
from torchgguf.quants import QuantType

SCALE = "scale"
# The second is the factor that hardware quantizes activations by. Nothing here reads it; it is written back.
FACTOR_KINDS = (SCALE, "input_scale")


def is_factor(name: str) -> bool:
    """Return whether a tensor, by its name in a layer, is a factor and not a parameter of plain layers."""
    return name.rpartition(".")[2] in FACTOR_KINDS


def factor_name(matrix: str, kind: str = SCALE) -> str:
    """Return the name of a factor, given that of its matrix, such as `up_proj.weight`."""
    return matrix.removesuffix("weight") + kind


def scaled_linear(
    input: Tensor,
    weight: Tensor,
    quant_type: QuantType,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    scales_bias: bool = False,
) -> Tensor:
    """Return `scale * (input @ dequantize(weight).T) + bias` in the input's dtype.

    Args:
        input: `(..., in_features)`.
        weight: uint8 `(out_features, bytes_per_row)`.
        quant_type: of the blocks.
        bias: `(out_features,)`.
        scale: a single number; None: 1.
        scales_bias: whether the factor applies to the bias, too.
    """
    if scale is None:
        return kernels.linear(input, weight, quant_type, bias)
    if scales_bias and bias is not None:
        bias = bias * scale
    # Before the factor, which is small, products are beyond the range of float16.
    wide = input.float() if input.dtype is torch.float16 else input
    product = kernels.linear(wide, weight, quant_type) * scale
    return (product if bias is None else product + bias).to(input.dtype)


def times_factor(weights: Tensor, scale: Tensor) -> Tensor:
    """Return plain weights, `(rows, columns)` or those of each expert, times one factor or one for each."""
    return weights * scale.to(weights).view(-1, *[1] * (weights.dim() - 1))


def unpacked(
    weight: Tensor, quant_type: QuantType, dtype: torch.dtype, scale: Tensor | None = None
) -> Tensor:
    """Return the plain weights of blocks, times their factors, in `dtype`."""
    if scale is None:
        return kernels.dequantize(weight, quant_type, dtype)
    return times_factor(kernels.dequantize(weight, quant_type), scale).to(dtype)
