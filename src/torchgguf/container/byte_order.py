"""Swap the byte order of tensors: a table of which bytes of a block belong to one number.

A file of the other byte order holds what a machine of that order keeps in memory. So the numbers to swap are
those that ggml's dequantize_row_* functions (ggml/src/ggml-quants.c) read as wider than one byte. The struct
of a block sometimes differs from that: IQ2_XXS, for example, reads its grid indices as bytes.
"""

import re
import struct
from functools import cache

import numpy as np
import numpy.typing as npt

from torchgguf.container.errors import GGUFError
from torchgguf.container.tensor_types import BLOCK_SIZES, PLAIN, TensorType

# Each block in the codes of the struct module: H, I and f are numbers to swap, s are bytes that stay.
_BLOCKS = {
    "Q1_0": "H16s",
    "Q2_0": "H16s",
    "Q4_0": "H16s",
    "Q4_1": "HH16s",
    "Q5_0": "HI16s",
    "Q5_1": "HHI16s",
    "Q8_0": "H32s",
    "Q8_1": "HH32s",
    "Q2_K": "80sHH",
    "Q3_K": "108sH",
    "Q4_K": "HH140s",
    "Q5_K": "HH172s",
    "Q6_K": "208sH",
    "Q8_K": "f256s16H",
    "IQ1_S": "H32s8H",
    "IQ1_M": "48s4H",
    "IQ2_XXS": "H" + 8 * "4sI",
    "IQ2_XS": "H32H8s",
    "IQ2_S": "H80s",
    "IQ3_XXS": "H64s8I",
    "IQ3_S": "H108s",
    "IQ4_NL": "H16s",
    "IQ4_XS": "HH132s",
    "TQ1_0": "52sH",
    "TQ2_0": "64sH",
    "MXFP4": "17s",
    "NVFP4": "36s",
}


def _swapped_order(layout: str) -> list[int]:
    order: list[int] = []
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout):
        width = 1 if code == "s" else struct.calcsize("=" + code)
        for _ in range(int(count or 1)):
            order += range(len(order) + width - 1, len(order) - 1, -1)
    return order


@cache
def _order(tensor_type: TensorType) -> list[int]:
    """Return, for each byte of a block, the index of its source byte in a block of the other order."""
    if tensor_type in PLAIN:
        return list(reversed(range(BLOCK_SIZES[tensor_type][1])))
    if tensor_type.name not in _BLOCKS:
        raise GGUFError(f"reading {tensor_type.name} from a file of the other byte order is unsupported")
    return _swapped_order(_BLOCKS[tensor_type.name])


def swap_bytes(data: npt.NDArray[np.uint8], tensor_type: TensorType) -> npt.NDArray[np.uint8]:
    """Copy whole blocks with every number in them in the other byte order.

    Args:
        data: the blocks as flat uint8; its length is a multiple of the block size in bytes.
        tensor_type: the type of the blocks.

    Returns:
        A new flat uint8 array of the same length.

    Raises:
        GGUFError: the layout of the type is unknown.
    """
    order = _order(tensor_type)
    return data.reshape(-1, len(order))[:, order].reshape(-1)
