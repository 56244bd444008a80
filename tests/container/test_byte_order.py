"""Packed blocks of big-endian files, against gguf-py's converter and what ggml's dequantizers read."""

import gguf
import numpy as np
import pytest
from gguf.scripts.gguf_convert_endian import byteswap_tensors

from torchgguf.container import open_gguf
from torchgguf.container.tensor_types import BLOCK_SIZES, PLAIN, TENSOR_TYPES

from .raw import Raw

PACKED = [member for member in TENSOR_TYPES.values() if member not in PLAIN]

# Fields wider than a byte, as ggml/src/ggml-quants.c reads them: offset and width.
WIDE = {
    "Q4_1": [(0, 2), (2, 2)],
    "Q5_0": [(0, 2), (2, 4)],
    "Q5_1": [(0, 2), (2, 2), (4, 4)],
    "Q2_K": [(80, 2), (82, 2)],
    "Q3_K": [(108, 2)],
    "Q5_K": [(0, 2), (2, 2)],
    "IQ2_XXS": [(0, 2), *((2 + 8 * i + 4, 4) for i in range(8))],
    "IQ2_XS": [(0, 2), *((2 + 2 * i, 2) for i in range(32))],
    "IQ2_S": [(0, 2)],
    "IQ3_XXS": [(0, 2), *((66 + 4 * i, 4) for i in range(8))],
    "IQ3_S": [(0, 2)],
    "IQ1_S": [(0, 2), *((34 + 2 * i, 2) for i in range(8))],
    "IQ1_M": [(48 + 2 * i, 2) for i in range(4)],
    "IQ4_NL": [(0, 2)],
    "IQ4_XS": [(0, 2), (2, 2)],
    "TQ1_0": [(52, 2)],
    "TQ2_0": [(64, 2)],
    "Q1_0": [(0, 2)],
    "Q2_0": [(0, 2)],
    "Q8_1": [(0, 2), (2, 2)],
    "Q8_K": [(0, 4), *((260 + 2 * i, 2) for i in range(16))],
}


def test_the_types_are_llama_cpps():
    import xllamacpp

    theirs = {member.name.removeprefix("GGML_TYPE_"): member.value for member in xllamacpp.ggml_type}
    del theirs["COUNT"]
    assert {member.name: type_id for type_id, member in TENSOR_TYPES.items()} == theirs


def read(tmp_path, order, tensor_type, blocks):
    block_size, _ = BLOCK_SIZES[tensor_type]
    raw = Raw(order=order, tensors=[("w", [block_size * len(blocks)], int(tensor_type), 0)])
    raw.data = blocks.tobytes()
    (tmp_path / "x.gguf").write_bytes(raw.build())
    return open_gguf(tmp_path / "x.gguf")["w"].numpy().reshape(blocks.shape)


@pytest.mark.parametrize("tensor_type", PACKED, ids=lambda member: member.name)
def test_wide_fields_are_turned_and_bytes_are_not(tmp_path, tensor_type):
    _, type_size = BLOCK_SIZES[tensor_type]
    native = np.random.default_rng(0).integers(0, 256, (3, type_size), np.uint8)
    foreign = native.copy()
    if tensor_type in byteswap_tensors:
        tensor = type("Tensor", (), {"data": foreign.reshape(-1)})
        for start in range(0, native.size, type_size):
            byteswap_tensors[tensor_type](tensor, start)
    else:
        for start, width in WIDE[tensor_type.name]:
            foreign[:, start : start + width] = native[:, start : start + width][:, ::-1]
    assert np.array_equal(read(tmp_path, ">", tensor_type, foreign), native)
    assert np.array_equal(read(tmp_path, "<", tensor_type, native), native)


def test_bf16(tmp_path):
    raw = Raw(order=">", tensors=[("w", [2], int(gguf.GGMLQuantizationType.BF16), 0)])
    raw.data = bytes.fromhex("3f80c000")
    (tmp_path / "x.gguf").write_bytes(raw.build())
    assert open_gguf(tmp_path / "x.gguf")["w"].tolist() == [1.0, -2.0]
