"""The types of tensors: their ids, their blocks, and the torch dtype of those that torch has itself.

Ids and sizes come from the `gguf` package. This is the one place that knows where it stands behind ggml.
"""

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

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

DTYPES = {
    TensorType.F32: torch.float32,
    TensorType.F16: torch.float16,
    TensorType.BF16: torch.bfloat16,
    TensorType.F64: torch.float64,
    TensorType.I8: torch.int8,
    TensorType.I16: torch.int16,
    TensorType.I32: torch.int32,
    TensorType.I64: torch.int64,
}

TYPES_OF_DTYPES = {dtype: tensor_type for tensor_type, dtype in DTYPES.items()}
