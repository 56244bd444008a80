"""What every implementation of an operator asks of its arguments; each wrong one is an error that names it.

The native kernels read raw memory by the sizes that these checks let through.
"""

from functools import cache

import torch
from torch import Tensor

from torchgguf.quants import quant_type


@cache
def block_layout(type_id: int) -> tuple[int, int]:
    """(block_size, type_size) of a type, looked up once: operators are called hundreds of times a token."""
    kind = quant_type(type_id)
    return kind.block_size, kind.type_size


def row_length(packed: Tensor, type_id: int) -> int:
    """Weights in a row of `packed`, whose last dimension is bytes.

    Raises:
        ValueError: the bytes are not whole blocks, or not bytes at all.
    """
    block_size, type_size = block_layout(type_id)
    if packed.dtype is not torch.uint8 or packed.dim() == 0 or packed.shape[-1] % type_size:
        raise ValueError(
            f"a packed {quant_type(type_id).name} tensor is uint8 with a multiple of {type_size} bytes "
            f"a row, not {packed.dtype} of shape {tuple(packed.shape)}"
        )
    return packed.shape[-1] // type_size * block_size


def check_matrix(weight: Tensor, type_id: int) -> int:
    """The columns of a packed matrix (rows, bytes_per_row).

    Raises:
        ValueError: it is no matrix, or its rows are not whole blocks.
    """
    if weight.dim() != 2:
        raise ValueError(f"a packed weight has two dimensions, not the shape {tuple(weight.shape)}")
    return row_length(weight, type_id)


def check_linear(
    input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None = None, *, transposed: bool = False
) -> int:
    """The in_features of `weight`, which `input` (for the transposed product: its gradient) and `bias` fit.

    Raises:
        ValueError: they do not fit, or are not on one device.
    """
    in_features = check_matrix(weight, type_id)
    out_features = weight.shape[0]
    if input.dim() == 0 or input.shape[-1] != (out_features if transposed else in_features):
        raise ValueError(
            f"an input of shape {tuple(input.shape)} does not fit the packed {quant_type(type_id).name} "
            f"weight, which is {out_features} × {in_features}"
        )
    if bias is not None and bias.shape != (out_features,):
        raise ValueError(f"the bias has shape {tuple(bias.shape)}, but the weight has {out_features} rows")
    if input.device != weight.device or (bias is not None and bias.device != weight.device):
        others = {str(tensor.device) for tensor in (input, bias) if tensor is not None}
        raise ValueError(f"the weight is on {weight.device}, input and bias are on {', '.join(others)}")
    return in_features


def check_embedding(indices: Tensor, weight: Tensor, type_id: int) -> int:
    """The columns of the table `weight`, for whose rows `indices` may ask if they are in range.

    Raises:
        ValueError: the indices are no integers, or the table is no packed matrix.
    """
    if indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"rows are asked for by int64 or int32 indices, not {indices.dtype}")
    return check_matrix(weight, type_id)
