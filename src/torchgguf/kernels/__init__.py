"""Operators on packed weights, for every device torch has and fast on the CPU.

Each is a torch operator (`torch.ops.torchgguf.*`): it takes part in autograd, `torch.compile` and profiling.
A type is its name ("Q4_K"), its ggml id or its QuantType.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchgguf._extension import native
from torchgguf.kernels import ops as _ops  # noqa: F401 (defines the operators)
from torchgguf.kernels.precision import multiplying_in, set_matmul_dtype
from torchgguf.quants import quant_type
from torchgguf.quants.base import QuantTypeLike

if native is not None:
    from torchgguf.kernels import cpu as _cpu  # noqa: F401 (registers its implementations)

__all__ = ["dequantize", "embedding", "linear", "multiplying_in", "quantize", "set_matmul_dtype"]


def dequantize(packed: Tensor, type: QuantTypeLike, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack `packed`, uint8 (..., bytes), to (..., n) numbers; FP32 is bit-exact with ggml.

    Raises:
        ValueError: the rows are not whole blocks, or the type is unknown.
    """
    result: Tensor = torch.ops.torchgguf.dequantize.default(packed, quant_type(type).id, dtype)
    return result


def quantize(weights: Tensor, type: QuantTypeLike, imatrix: Tensor | None = None) -> Tensor:
    """Pack `weights` (..., n) to uint8 (..., bytes), with the same bytes on every device and instruction set.

    Args:
        weights: finite numbers; a plain type takes any, which are cast to it.
        type: the type to pack to.
        imatrix: the importance of each column; `torchgguf.quants.quantize` explains it.

    Raises:
        ValueError: the rows are not whole blocks, weights or importances are not finite, the type needs
            importances, or the type is unknown.
    """
    result: Tensor = torch.ops.torchgguf.quantize.default(weights, quant_type(type).id, imatrix)
    return result


def linear(input: Tensor, weight: Tensor, type: QuantTypeLike, bias: Tensor | None = None) -> Tensor:
    """Multiply activations (..., in_features) with a packed weight, uint8 (out_features, bytes_per_row).

    The result is (..., out_features) in the dtype of the input. Gradients flow to `input` and `bias`.

    Raises:
        ValueError: the input does not fit the weight, or the type is unknown.
    """
    result: Tensor = torch.ops.torchgguf.linear.default(input, weight, quant_type(type).id, bias)
    return result


def embedding(
    indices: Tensor, weight: Tensor, type: QuantTypeLike, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Unpack the rows that `indices` (...) names of a packed table: (..., embedding_dim).

    Raises:
        IndexError: an index outside the table.
        ValueError: the rows are not whole blocks, or the type is unknown.
    """
    result: Tensor = torch.ops.torchgguf.embedding.default(indices, weight, quant_type(type).id, dtype)
    return result
