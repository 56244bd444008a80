"""Taking blocks of bytes apart, and putting them together.

Everywhere n counts blocks, and a block's bytes are the last dimension.
"""

import torch
from torch import Tensor


def fields(blocks: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """Return the parts of each block, (n, size) bytes for each of `sizes`."""
    return torch.split(blocks, list(sizes), dim=1)


def reinterpret(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the numbers that the bytes (n, k) are, (n, k / itemsize); little-endian, at any alignment."""
    return data.clone(memory_format=torch.contiguous_format).view(dtype)


def half(data: Tensor) -> Tensor:
    """FP16 numbers in bytes (n, 2 k), as float32 (n, k)."""
    return reinterpret(data, torch.float16).float()


def unsigned(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Little-endian unsigned numbers in bytes, as int64; `dtype` is the signed type of their size."""
    return reinterpret(data, dtype).long() & ((1 << 8 * dtype.itemsize) - 1)


def unsigned_bytes(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the little-endian bytes (n, k * itemsize) of int64 numbers (n, k): the inverse of `unsigned`."""
    return numbers.to(dtype).view(torch.uint8)


def unpack(data: Tensor, bits: int, run: int) -> Tensor:
    """Split bytes (n, k) into uint8 codes (n, k * 8 / bits) of `bits` bits.

    The bytes come in runs of `run`: a run gives first the lowest bits of each of its bytes, then the next
    higher ones, and so on. With `run` = 1 the codes of a byte are neighbours.
    """
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device).view(-1, 1)
    codes = (data.reshape(len(data), -1, 1, run) >> shifts) & ((1 << bits) - 1)
    return codes.flatten(1)


def half_bytes(numbers: Tensor) -> Tensor:
    """Return the bytes (n, 2 k) of numbers (n, k) in FP16; too large ones become its largest."""
    largest = torch.finfo(torch.float16).max
    return numbers.clamp(-largest, largest).to(torch.float16).view(torch.uint8)


def pack(codes: Tensor, bits: int, run: int) -> Tensor:
    """Join uint8 codes (n, m) of `bits` bits to bytes (n, m * bits / 8); `unpack` undone."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device).view(-1, 1)
    return (codes.reshape(len(codes), -1, 8 // bits, run) << shifts).sum(dim=2, dtype=torch.uint8).flatten(1)
