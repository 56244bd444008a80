"""The I-quants' grids and signs, from the gguf package: for torch, and handed over to the native decoders."""

from contextlib import suppress
from functools import cache

import numpy as np
import torch
from gguf import quants as gguf_quants
from numpy.typing import NDArray
from torch import Tensor

_NAMES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


def _entries(name: str) -> NDArray[np.int8]:
    source = getattr(gguf_quants, name)
    source.init_grid()
    entries: NDArray[np.int8] = source.grid.reshape(source.grid_shape).astype(np.int8)
    return entries


@cache
def _grid(name: str, device: torch.device) -> Tensor:
    return torch.from_numpy(_entries(name)).to(device, torch.float32)


@cache
def _even_signs(device: torch.device) -> Tensor:
    return torch.tensor(list(gguf_quants.IQ2_XXS.ksigns), dtype=torch.uint8, device=device)


def grid(name: str, entries: Tensor) -> Tensor:
    """The entries (n, k) of a type's grid, float32 (n, k, 8 or 4)."""
    return _grid(name, entries.device)[entries.int()]


def even_signs(codes: Tensor) -> Tensor:
    """Eight sign bits (a uint8) for the lowest seven of each code: the eighth makes their number even."""
    return _even_signs(codes.device)[(codes & 0x7F).int()]


with suppress(ImportError):  # without the native part there is nobody to hand over to
    from torchgguf import _native

    for _name in _NAMES:
        _native.set_grid(getattr(gguf_quants, _name).qtype, _entries(_name).tobytes())
