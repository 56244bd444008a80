"""Memory that ends where no more may be touched: reading or writing a byte too far ends the process."""

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

needs_guard_pages = pytest.mark.skipif(sys.platform != "linux", reason="protects memory through libc")


@contextmanager
def guarded(data: Tensor) -> Iterator[Tensor]:
    """A copy of `data` whose last byte is the last before a page that may not be touched."""
    whole = -(-data.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
    guard = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)) + whole)
    protect = ctypes.CDLL(None).mprotect
    copy = torch.frombuffer(memory, dtype=data.dtype, count=data.numel(), offset=whole - data.nbytes)
    copy = copy.view(data.shape).copy_(data)
    assert protect(guard, mmap.PAGESIZE, 0) == 0
    try:
        yield copy
    finally:
        assert protect(guard, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
