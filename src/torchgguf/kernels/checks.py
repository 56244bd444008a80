"""What every implementation of an operator requires of its arguments; the error names the wrong one.

The native kernels check again what they read and write, in fewer words: csrc/python/bind_kernels.cpp.
"""

from functools import cache

import torch
from torch import Tensor

from torchgguf.quants import quant_type


@cache
def block_layout(type_id: int) -> tuple[int, int]:
    """Return (block_size, type_size), looked up once a type: a token calls operators hundreds of times."""
    kind = quant_type(type_id)
    return kind.block_size, kind.type_size


def row_length(packed: Tensor, type_id: int) -> int:
    """Return the weights in a row of `packed`, whose last dimension is bytes.

    Raises:
        ValueError: a row is not whole blocks, or the dtype is not uint8.
    """
    block_size, type_size = block_layout(type_id)
    if packed.dtype is not torch.uint8 or packed.dim() == 0 or packed.shape[-1] % type_size:
        raise ValueError(
            f"a packed {quant_type(type_id).name} tensor is uint8 with a multiple of {type_size} bytes "
            f"a row, not {packed.dtype} of shape {tuple(packed.shape)}"
        )
    return packed.shape[-1] // type_size * block_size


def check_matrix(weight: Tensor, type_id: int) -> int:
    """Return the columns of a packed matrix (rows, bytes_per_row).

    Raises:
        ValueError: it is not a matrix, or its rows are not whole blocks.
    """
    if weight.dim() != 2:
        raise ValueError(f"a packed weight has two dimensions, not the shape {tuple(weight.shape)}")
    return row_length(weight, type_id)


def check_linear(
    input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None = None, *, transposed: bool = False
) -> int:
    """Return the in_features of `weight`, which `input` (transposed: the gradient) and `bias` must match.

    Raises:
        ValueError: they do not match, or are not on one device.
    """
    in_features = check_matrix(weight, type_id)
    out_features = weight.shape[0]
    if input.dim() == 0 or input.shape[-1] != (out_features if transposed else in_features):
        raise ValueError(
            f"an input of shape {tuple(input.shape)} does not match the packed {quant_type(type_id).name} "
            f"weight, which is {out_features} × {in_features}"
        )
    if bias is not None and bias.shape != (out_features,):
        raise ValueError(f"the bias has shape {tuple(bias.shape)}, but the weight has {out_features} rows")
    if input.device != weight.device or (bias is not None and bias.device != weight.device):
        others = {str(tensor.device) for tensor in (input, bias) if tensor is not None}
        raise ValueError(f"the weight is on {weight.device}, input and bias are on {', '.join(others)}")
    return in_features


def check_embedding(indices: Tensor, weight: Tensor, type_id: int) -> int:
    """Return the columns of the table `weight`, whose rows `indices` name.

    Raises:
        ValueError: the indices are not integers, or the table is not a packed matrix.
    """
    if indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"indices must be int64 or int32, not {indices.dtype}")
    return check_matrix(weight, type_id)
