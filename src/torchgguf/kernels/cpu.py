"""The operators on the CPU, by the native kernels.

`linear` has two ways. A few rows (decoding) are multiplied with the packed bytes directly: each weight is
read once and memory bandwidth is the limit. Many rows (prefill, training) are worth unpacking for: a tile of
weight rows that fits the cache is decoded, multiplied by torch, and overwritten by the next.

`new_empty` of a tensor beside it makes each buffer that native code fills: so neither torch's default dtype
nor its default device counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

import torchgguf._native as _native
from torchgguf.kernels.checks import check_embedding, check_linear, row_length
from torchgguf.kernels.ops import LIBRARY, REFERENCE, quantize_with
from torchgguf.kernels.precision import matmul_dtype
from torchgguf.quants import QuantType, quant_type

# From this many rows on, decoding the weight and a dense matmul beat reading it packed. Products in BF16
# hardware are so fast that it pays early.
DENSE_FROM_ROWS = 17
DENSE_FROM_ROWS_BF16 = 9

# A tile is small enough to stay in the cache between its decoding and its product, and tall enough that the
# activations, which every tile reads anew, are not the bottleneck.
TILE_BYTES = 2 << 20
TILE_ROWS = 256

_DECODED = (torch.float32, torch.bfloat16)  # what the decoders write


def _needs_reference(type_id: int, dtype: torch.dtype) -> bool:
    """Return whether torch must convert: plain numbers to a dtype that holds more than FP32 does."""
    return dtype not in _DECODED and quant_type(type_id).dtype is not None


def _decode_into(out: Tensor, packed: Tensor, type_id: int) -> Tensor:
    """Decode the contiguous rows of `packed` into `out`, FP32 or BF16."""
    _native.dequantize(type_id, packed, out, torch.get_num_threads())
    return out


def _dequantize(packed: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    if _needs_reference(type_id, dtype):
        return REFERENCE["dequantize"](packed, type_id, dtype)
    decoded = dtype if dtype in _DECODED else torch.float32
    out = packed.new_empty((*packed.shape[:-1], row_length(packed, type_id)), dtype=decoded)
    return _decode_into(out, packed.contiguous(), type_id).to(dtype)


def _encode_rows(kind: QuantType, rows: Tensor, importance: Tensor | None, packed: Tensor) -> None:
    _native.quantize(kind.id, rows, importance, packed, torch.get_num_threads())


def _quantize(weights: Tensor, type_id: int, imatrix: Tensor | None = None) -> Tensor:
    return quantize_with(_encode_rows, weights, type_id, imatrix)


def _embedding(indices: Tensor, weight: Tensor, type_id: int, dtype: torch.dtype) -> Tensor:
    if _needs_reference(type_id, dtype):
        return REFERENCE["embedding"](indices, weight, type_id, dtype)
    n = check_embedding(indices, weight, type_id)
    decoded = dtype if dtype in _DECODED else torch.float32
    out = weight.new_empty((*indices.shape, n), dtype=decoded)
    indices, weight = indices.to(torch.int64).contiguous(), weight.contiguous()
    _native.embedding(type_id, weight, indices, out, torch.get_num_threads())
    return out.to(dtype)


def _linear(input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None = None) -> Tensor:
    # Every layer and token come this way: what is right takes the shortest path, which checks natively.
    in_features = input.shape[-1] if input.dim() else 0
    rows = input.numel() // in_features if in_features else 0
    few = rows < DENSE_FROM_ROWS_BF16 or (rows < DENSE_FROM_ROWS and matmul_dtype(type_id) == torch.float32)
    if few and in_features and input.dtype is not torch.float64:
        return _packed_linear(input, weight, type_id, bias)
    check_linear(input, weight, type_id, bias)
    if input.dtype is torch.float64 or in_features == 0:
        return REFERENCE["linear"](input, weight, type_id, bias)
    dtype = matmul_dtype(type_id)
    x = input.reshape(rows, in_features).to(dtype)
    out = input.new_empty((rows, weight.shape[0]))
    for begin, tile in _decoded_tiles(weight, type_id, in_features, dtype):
        out[:, begin : begin + len(tile)] = F.linear(x, tile)
    if bias is not None:
        out += bias
    return out.view(*input.shape[:-1], weight.shape[0])


def _packed_linear(input: Tensor, weight: Tensor, type_id: int, bias: Tensor | None) -> Tensor:
    x = input if input.dtype is torch.float32 and input.is_contiguous() else input.float().contiguous()
    if not weight.is_contiguous():
        weight = weight.contiguous()
    if bias is not None and not (bias.dtype is torch.float32 and bias.is_contiguous()):
        bias = bias.float().contiguous()
    out = x.new_empty((*x.shape[:-1], *weight.shape[:1]))
    try:
        _native.linear(type_id, weight, x, bias, out, torch.get_num_threads())
    except (TypeError, ValueError):
        check_linear(input, weight, type_id, bias)  # names what is wrong as the other implementations do
        raise
    return out if input.dtype is torch.float32 else out.to(input.dtype)


def _decoded_tiles(
    weight: Tensor, type_id: int, in_features: int, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Decode the rows of `weight` a tile at a time into one buffer; yield (first row, tile)."""
    weight = weight.contiguous()
    tile_rows = max(TILE_ROWS, TILE_BYTES // (in_features * dtype.itemsize) // 16 * 16)
    buffer = weight.new_empty((min(tile_rows, weight.shape[0]), in_features), dtype=dtype)
    for begin in range(0, weight.shape[0], tile_rows):
        packed = weight[begin : begin + tile_rows]
        yield begin, _decode_into(buffer[: len(packed)], packed, type_id)


def _linear_backward(grad_output: Tensor, weight: Tensor, type_id: int) -> Tensor:
    in_features = check_linear(grad_output, weight, type_id, transposed=True)
    if grad_output.dtype is torch.float64 or grad_output.numel() == 0:
        return REFERENCE["linear_backward"](grad_output, weight, type_id)
    dtype = matmul_dtype(type_id)
    grad = grad_output.reshape(-1, weight.shape[0]).to(dtype)
    grad_input = grad.new_zeros((len(grad), in_features), dtype=torch.float32)
    for begin, tile in _decoded_tiles(weight, type_id, in_features, dtype):
        part = grad[:, begin : begin + len(tile)]
        if dtype is torch.float32:
            grad_input.addmm_(
                part, tile
            )  # without a second result in memory, which takes a tenth of the time
        else:
            grad_input += part @ tile
    return grad_input.to(grad_output.dtype).view(*grad_output.shape[:-1], in_features)


for _name, _implementation in {
    "dequantize": _dequantize,
    "quantize": _quantize,
    "linear": _linear,
    "linear_backward": _linear_backward,
    "embedding": _embedding,
}.items():
    LIBRARY.impl(_name, _implementation, "CPU")
