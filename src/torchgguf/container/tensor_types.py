"""The types of tensors: their ids, their blocks, and the torch dtype of those that torch has itself.

Ids and sizes come from the `gguf` package. This is the one place that knows where it stands behind ggml.
torch is imported by what handles tensors, when it does: reading a header does not wait for that.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

if TYPE_CHECKING:
    import torch

TensorType = GGMLQuantizationType


def _type_beyond_gguf(type_id: int, name: str) -> TensorType:
    """A member of `TensorType` that the installed gguf package does not list yet."""
    if type_id in TensorType._value2member_map_:
        return TensorType(type_id)
    member = int.__new__(TensorType, type_id)
    member._name_, member._value_ = name, type_id
    setattr(TensorType, name, member)  # found by name and by id, as copying and pickling ask for it
    TensorType._member_map_[name] = TensorType._value2member_map_[type_id] = member
    return member


# Elements and bytes of a block. In ggml/src/ggml-common.h, block_q8_1 holds halves where gguf has floats.
BLOCK_SIZES = GGML_QUANT_SIZES | {
    _type_beyond_gguf(42, "Q2_0"): (64, 2 + 16),
    TensorType.Q8_1: (32, 2 + 2 + 32),
}

TENSOR_TYPES = {int(member): member for member in BLOCK_SIZES}

# Types that torch has itself, by its name for them; all others are packed.
PLAIN = {
    TensorType.F32: "float32",
    TensorType.F16: "float16",
    TensorType.BF16: "bfloat16",
    TensorType.F64: "float64",
    TensorType.I8: "int8",
    TensorType.I16: "int16",
    TensorType.I32: "int32",
    TensorType.I64: "int64",
}


@cache
def storage_dtype(tensor_type: TensorType) -> torch.dtype:
    """The dtype of the torch tensor that holds such a tensor: uint8 if it is packed."""
    import torch

    dtype: torch.dtype = getattr(torch, PLAIN.get(tensor_type, "uint8"))
    return dtype


def type_of_dtype(dtype: torch.dtype) -> TensorType | None:
    """The type of a plain tensor of that dtype; None if GGUF has none."""
    return next((plain for plain in PLAIN if storage_dtype(plain) == dtype), None)
