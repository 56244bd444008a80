"""Experts that Hugging Face checkpoints store in MXFP4, as the blocks of GGUF files.

A matrix is two tensors there: `…_blocks`, `(E, rows, G, 16)`, and `…_scales`, `(E, rows, G)`, for E experts
and G groups of 32 weights a row. A byte contains two weights side by side; in GGUF's blocks, it contains a
weight of the first half of the group and one of the second half.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from torchgguf.container import LazyTensor, TensorType
from torchgguf.models.core.weight_map import Interleaved

_GROUP = 32  # weights that share a scale
_BLOCKS, _SCALES, _BIAS = "_blocks", "_scales", "_bias"


def separate_matrices(
    tensors: Mapping[str, LazyTensor], rows: Iterable[Interleaved], error: Callable[[str], Exception]
) -> dict[str, LazyTensor]:
    """Return tensors with the packed parameters of experts as separate matrices and biases.

    Args:
        tensors: by the names of weight maps.
        rows: names of the parameters that may be packed.
        error: creates the error for a reason.

    Returns:
        The tensors, by the names of slots where they were packed. Without packed ones they are the same.

    Raises:
        Exception: what `error` returns, if blocks are without scales, or of another shape than scales and
            biases.
    """
    separate = dict(tensors)
    for row in rows:
        for name in _packed_names(tensors, row):
            blocks = separate.pop(name + _BLOCKS)
            scales = separate.pop(name + _SCALES, None)
            if scales is None or blocks.shape != (*scales.shape, _GROUP // 2) or len(blocks.shape) != 4:
                stored = "missing" if scales is None else f"{scales.shape}"
                raise error(f"{name}{_BLOCKS} has shape {blocks.shape}, but {name}{_SCALES} is {stored}")
            if {blocks.dtype, scales.dtype} != {torch.uint8}:
                raise error(f"{name}{_BLOCKS} and {name}{_SCALES} must be uint8")
            module, count = name.rpartition(".")[0], len(row.parts)
            experts, height, groups = scales.shape
            if height % count:
                raise error(f"{name}{_BLOCKS} has {height} rows, which are not {count} matrices")
            shape = (experts, height // count, groups * _GROUP)
            bias = separate.pop(name + _BIAS, None)
            if bias is not None and bias.shape != (experts, height):
                raise error(f"{name}{_BIAS} has shape {bias.shape}, expected {(experts, height)}")
            for i, part in enumerate(row.parts):
                load = partial(_load_blocks, blocks, scales, slice(i, None, count))
                separate[f"{module}.{part}.weight"] = LazyTensor(shape, TensorType.MXFP4, load)
                if bias is not None:
                    load = partial(_load_columns, bias, slice(i, None, count))
                    separate[f"{module}.{part}.bias"] = LazyTensor(shape[:2], bias.type, load)
    return separate


def _packed_names(tensors: Mapping[str, LazyTensor], row: Interleaved) -> Iterator[str]:
    """Iterate over the names of a parameter in the layers where it is packed."""
    before, after = map(re.escape, row.name.split("{}"))
    for name in tensors:
        if found := re.fullmatch(rf"({before}\d+{after}){_BLOCKS}", name):
            yield found[1]


def _load_blocks(blocks: LazyTensor, scales: LazyTensor, rows: slice) -> Tensor:
    """Return the blocks of some rows, `(E, rows, bytes_per_row)`."""
    return to_gguf_blocks(blocks.load()[:, rows], scales.load()[:, rows])


def _load_columns(bias: LazyTensor, columns: slice) -> Tensor:
    return bias.load()[:, columns].contiguous()


def to_gguf_blocks(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return rows of GGUF's blocks, `(..., G * 17)`.

    Args:
        blocks: uint8 `(..., G, 16)`, pairs of neighbours.
        scales: uint8 `(..., G)`.
    """
    weights = torch.stack((blocks & 0xF, blocks >> 4), dim=-1).flatten(-2)
    first, second = weights.chunk(2, dim=-1)
    return torch.cat((scales.unsqueeze(-1), first | second << 4), dim=-1).flatten(-2)
