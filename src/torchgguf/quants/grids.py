"""The I-quants' grids and signs, from the gguf package: for torch, and passed on to the native kernels."""

from functools import cache

import numpy as np
import torch
from gguf import quants as gguf_quants
from numpy.typing import NDArray
from torch import Tensor

from torchgguf._extension import native

_NAMES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")

# Points whose distances to all entries are taken at once.
_AT_ONCE = 512


# Arrays are kept, not tensors: one made under a FakeTensorMode would be fake for good.
@cache
def _entries(name: str) -> NDArray[np.int8]:
    source = getattr(gguf_quants, name)
    source.init_grid()
    entries: NDArray[np.int8] = source.grid.reshape(source.grid_shape).astype(np.int8)
    return entries


def grid(name: str, entries: Tensor) -> Tensor:
    """Return the entries (n, k) of a type's grid, float32 (n, k, 8 or 4)."""
    return torch.tensor(_entries(name), dtype=torch.float32, device=entries.device)[entries.int()]


@cache
def _sorted(name: str) -> NDArray[np.int64]:
    """Return the entries of a grid in the order of their first numbers, then their second ones, and so on."""
    return np.lexsort(_entries(name).T[::-1])


def nearest_entries(name: str, x: Tensor, w: Tensor, shift: float = 0) -> tuple[Tensor, Tensor]:
    """Which entry of a grid, moved by `shift`, is nearest to each of x (m, 8 or 4), and sum w error**2.

    Of several the first one in the order of their numbers. The squares are added in pairs, and these
    in pairs.
    """
    entries = torch.tensor(_sorted(name), device=x.device)
    numbers = grid(name, entries) + shift
    found, least = x.new_empty(len(x), dtype=torch.long), x.new_empty(len(x))
    for start in range(0, len(x), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        error = x[part].unsqueeze(1) - numbers
        losses = w[part].unsqueeze(1) * error * error
        while losses.shape[-1] > 1:
            losses = losses[..., ::2] + losses[..., 1::2]
        least[part], place = losses.squeeze(-1).min(dim=1)
        found[part] = entries[place]
    return found, least


def even_signs(codes: Tensor) -> Tensor:
    """Eight sign bits (a uint8) for the lowest seven of each code: the eighth makes their number even."""
    signs = torch.tensor(list(gguf_quants.IQ2_XXS.ksigns), dtype=torch.uint8, device=codes.device)
    return signs[(codes & 0x7F).int()]


if native is not None:
    for _name in _NAMES:
        native.set_grid(getattr(gguf_quants, _name).qtype, _entries(_name).tobytes())
