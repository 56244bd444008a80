"""The types of tensors: ids, block sizes, and the torch dtypes of plain types.

Ids and sizes come from the `gguf` package. Where that package is behind ggml, this module corrects it.
torch is imported only when a tensor is used, so that reading a header does not wait for that import.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

if TYPE_CHECKING:
    import torch

TensorType = GGMLQuantizationType


def _type_beyond_gguf(type_id: int, name: str) -> TensorType:
    """Return a member of `TensorType`, and add it if the installed gguf package does not list it yet."""
    if type_id in TensorType._value2member_map_:
        return TensorType(type_id)
    member = int.__new__(TensorType, type_id)
    member._name_, member._value_ = name, type_id
    setattr(TensorType, name, member)  # copying and pickling look it up by name and by id
    TensorType._member_map_[name] = TensorType._value2member_map_[type_id] = member
    return member


# Elements and bytes of a block. In ggml/src/ggml-common.h block_q8_1 holds float16, in gguf it is float32.
BLOCK_SIZES = GGML_QUANT_SIZES | {
    _type_beyond_gguf(42, "Q2_0"): (64, 2 + 16),
    TensorType.Q8_1: (32, 2 + 2 + 32),
}

TENSOR_TYPES = {int(member): member for member in BLOCK_SIZES}

# Plain types, with their names in torch; all other types are packed.
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
    """Return the torch dtype that stores a tensor of this type: uint8 for packed types."""
    import torch

    dtype: torch.dtype = getattr(torch, PLAIN.get(tensor_type, "uint8"))
    return dtype


def type_of_dtype(dtype: torch.dtype) -> TensorType | None:
    """Return the plain type with this torch dtype, or None if GGUF has no such type."""
    return next((plain for plain in PLAIN if storage_dtype(plain) == dtype), None)
