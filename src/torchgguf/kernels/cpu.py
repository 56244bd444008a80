"""The operators on the CPU, by the native kernels.

`linear` has two ways. A few rows (decoding) are multiplied with the packed bytes directly: each weight is
read once and memory bandwidth is the limit. Many rows (prefill, training) are worth unpacking for: a tile of
weight rows that fits the cache is decoded, met by torch's own matmul, and overwritten by the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

import torchgguf._native as _native
from torchgguf.kernels.checks import check_embedding, check_linear, row_length
from torchgguf.kernels.ops import LIBRARY, REFERENCE
from torchgguf.kernels.precision import matmul_dtype
from torchgguf.quants import quant_type

# From this many rows on, decoding the weight and a dense matmul beat reading it packed. Products in BF16
# hardware are so fast that it pays early.
DENSE_FROM_ROWS = 17
DENSE_FROM_ROWS_BF16 = 9

# A tile is small enough to stay in the cache between its decoding and its product, and tall enough that the
# activations, which every tile reads anew, are not what is waited for.
TILE_BYTES = 2 << 20
TILE_ROWS = 256

_OUTPUT_KIND = {torch.float32: 0, torch.bfloat16: 1}  # OutputKind in csrc/dequantize.h


def _needs_reference(type_id: int, dtype: torch.dtype) -> bool:
    """Plain numbers asked for in a dtype that FP32 would not hold are converted by torch, losing nothing."""
    return dtype not in _OUTPUT_KIND and quant_type(type_id).dtype is not None


def _decode_into(out: Tensor, packed: Tensor, type_id: int) -> Tensor:
    """Decode the contiguous rows of `packed` into `out`, FP32 or BF16."""
    n = out.shape[-1]
    rows = out.numel() // n if n else 0
    kind = _OUTPUT_KIND[out.dtype]
    _native.dequantize_rows(
        type_id, packed.data_ptr(), out.data_ptr(), rows, n, kind, torch.get_num_threads()
    )
    return out


def _dequantize(packed: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    if _needs_reference(type_id, dtype):
        return REFERENCE["dequantize"](packed, type_id, dtype)
    native = dtype if dtype in _OUTPUT_KIND else torch.float32
    out = torch.empty((*packed.shape[:-1], row_length(packed, type_id)), dtype=native)
    return _decode_into(out, packed.contiguous(), type_id).to(dtype)


def _embedding(indices: Tensor, weight: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    if _needs_reference(type_id, dtype):
        return REFERENCE["embedding"](indices, weight, type_id, dtype)
    n = check_embedding(indices, weight, type_id)
    indices, weight = indices.to(torch.int64).contiguous(), weight.contiguous()
    if indices.numel():
        low, high = (int(bound) for bound in indices.aminmax())
        if low < 0 or high >= weight.shape[0]:
            raise IndexError(f"index {low if low < 0 else high} is outside the {weight.shape[0]} embeddings")
    native = dtype if dtype in _OUTPUT_KIND else torch.float32
    out = torch.empty((*indices.shape, n), dtype=native)
    _native.embedding_rows(
        type_id,
        weight.data_ptr(),
        indices.data_ptr(),
        indices.numel(),
        out.data_ptr(),
        n,
        _OUTPUT_KIND[native],
        torch.get_num_threads(),
    )
    return out.to(dtype)


def _linear(input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None = None) -> Tensor:
    in_features = check_linear(input, weight, type_id, bias)
    if input.dtype is torch.float64 or in_features == 0:
        return REFERENCE["linear"](input, weight, type_id, bias)
    rows = input.numel() // in_features
    if rows < DENSE_FROM_ROWS and (rows < DENSE_FROM_ROWS_BF16 or matmul_dtype(type_id) == torch.float32):
        return _packed_linear(input, weight, type_id, in_features, rows, bias)
    dtype = matmul_dtype(type_id)
    x = input.reshape(rows, in_features).to(dtype)
    out = torch.empty((rows, weight.shape[0]), dtype=input.dtype)
    for begin, tile in _decoded_tiles(weight, type_id, in_features, dtype):
        out[:, begin : begin + len(tile)] = F.linear(x, tile)
    if bias is not None:
        out += bias
    return out.view(*input.shape[:-1], weight.shape[0])


def _packed_linear(
    input: Tensor, weight: Tensor, type_id: int, in_features: int, rows: int, bias: Tensor | None
) -> Tensor:
    # Called for every layer and token: what is already as it must be is not asked to become so.
    x = input if input.dtype is torch.float32 and input.is_contiguous() else input.float().contiguous()
    if not weight.is_contiguous():
        weight = weight.contiguous()
    bias_pointer = 0
    if bias is not None:
        bias = bias.float().contiguous()
        bias_pointer = bias.data_ptr()
    out_features, row_bytes = weight.shape
    out = torch.empty((*input.shape[:-1], out_features))
    _native.linear(
        type_id,
        weight.data_ptr(),
        row_bytes,
        in_features,
        out_features,
        x.data_ptr(),
        rows,
        bias_pointer,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out if input.dtype is torch.float32 else out.to(input.dtype)


def _decoded_tiles(
    weight: Tensor, type_id: int, in_features: int, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """The rows of `weight`, decoded a tile at a time into one buffer: (first row, tile)."""
    weight = weight.contiguous()
    tile_rows = max(TILE_ROWS, TILE_BYTES // (in_features * dtype.itemsize) // 16 * 16)
    buffer = torch.empty((min(tile_rows, weight.shape[0]), in_features), dtype=dtype)
    for begin in range(0, weight.shape[0], tile_rows):
        packed = weight[begin : begin + tile_rows]
        yield begin, _decode_into(buffer[: len(packed)], packed, type_id)


def _linear_backward(grad_output: Tensor, weight: Tensor, type_id: int) -> Tensor:
    in_features = check_linear(grad_output, weight, type_id, transposed=True)
    if grad_output.dtype is torch.float64 or grad_output.numel() == 0:
        return REFERENCE["linear_backward"](grad_output, weight, type_id)
    dtype = matmul_dtype(type_id)
    grad = grad_output.reshape(-1, weight.shape[0]).to(dtype)
    grad_input = torch.zeros((len(grad), in_features), dtype=torch.float32)
    for begin, tile in _decoded_tiles(weight, type_id, in_features, dtype):
        grad_input += grad[:, begin : begin + len(tile)] @ tile
    return grad_input.to(grad_output.dtype).view(*grad_output.shape[:-1], in_features)


for _name, _implementation in {
    "dequantize": _dequantize,
    "linear": _linear,
    "linear_backward": _linear_backward,
    "embedding": _embedding,
}.items():
    LIBRARY.impl(_name, _implementation, "CPU")
