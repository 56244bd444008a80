"""The I-quants' grids and signs, from the gguf package: for torch, and handed over to the native decoders."""

from functools import cache

import numpy as np
import torch
from gguf import quants as gguf_quants
from numpy.typing import NDArray
from torch import Tensor

from torchgguf._extension import native

_NAMES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


# Arrays are kept, not tensors: one made under a FakeTensorMode would be fake for good.
@cache
def _entries(name: str) -> NDArray[np.int8]:
    source = getattr(gguf_quants, name)
    source.init_grid()
    entries: NDArray[np.int8] = source.grid.reshape(source.grid_shape).astype(np.int8)
    return entries


def grid(name: str, entries: Tensor) -> Tensor:
    """The entries (n, k) of a type's grid, float32 (n, k, 8 or 4)."""
    return torch.tensor(_entries(name), dtype=torch.float32, device=entries.device)[entries.int()]


def even_signs(codes: Tensor) -> Tensor:
    """Eight sign bits (a uint8) for the lowest seven of each code: the eighth makes their number even."""
    signs = torch.tensor(list(gguf_quants.IQ2_XXS.ksigns), dtype=torch.uint8, device=codes.device)
    return signs[(codes & 0x7F).int()]


if native is not None:
    for _name in _NAMES:
        native.set_grid(getattr(gguf_quants, _name).qtype, _entries(_name).tobytes())
