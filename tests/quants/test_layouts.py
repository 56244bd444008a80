"""The table of block layouts: against the gguf package, the native part, and as all that a decoder needs."""

from dataclasses import asdict

import gguf
import numpy as np
import pytest
import torch

from tests.quants.evidence import assert_same_bits, random_rows, types_in_gguf, unpacked_by_gguf
from torchgguf._extension import native
from torchgguf.quants import quant_types
from torchgguf.quants.layouts import LAYOUTS, BlockField

INTERNAL = ("Q8_1", "Q8_K")  # what ggml computes with; tensors are not stored in it
DTYPES = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}
DTYPES |= {"i8": "i1", "i16": "<i2", "i32": "<i4", "i64": "<i8", "u8": "u1"}
BYTES = {kind: np.dtype(dtype).itemsize for kind, dtype in DTYPES.items()}
BYTES |= {"bf16": 2, "e8m0": 1, "ue4m3": 1, "u16": 2, "u32": 4}
# Of these the fields say all: no scales that are packed by a rule of their own, and no grid.
REGULAR = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q6_K", "TQ2_0")


def test_types_and_sizes_are_those_of_the_gguf_package():
    ours = {name: (layout.id, layout.block_size, layout.type_size) for name, layout in LAYOUTS.items()}
    assert ours == {kind.name: (kind.id, kind.block_size, kind.type_size) for kind in quant_types()}
    for kind, sizes in gguf.GGML_QUANT_SIZES.items():
        assert kind.name in INTERNAL or ours[kind.name] == (kind.value, *sizes)


@pytest.mark.skipif(native is None, reason="the native part was not built")
def test_it_is_the_table_that_the_native_kernels_use():
    expected = native.layouts()
    for name, layout in LAYOUTS.items():
        fields = expected[name].pop("fields")
        assert {k: v for k, v in asdict(layout).items() if k in expected[name]} == expected[name]
        assert layout.fields == {at: BlockField(**numbers) for at, numbers in fields.items()}
    assert list(expected) == list(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_fill_the_block(name):
    layout = LAYOUTS[name]
    bits = []
    for field in layout.fields.values():
        width = field.bits if field.kind == "codes" else 8 * BYTES[field.kind]
        for i in range(field.count):
            byte, bit = field.place(i)
            bits += range(8 * byte + bit, 8 * byte + bit + width)
    assert sorted(bits) == list(range(8 * layout.type_size))


def numbers(blocks: np.ndarray, field: BlockField) -> np.ndarray:
    """What a field stores, (n, count), read by nothing but the table."""
    if field.kind == "codes":
        places = [field.place(i) for i in range(field.count)]
        stored = np.stack([blocks[:, byte] >> bit & ((1 << field.bits) - 1) for byte, bit in places], 1)
        return stored.astype(np.int64) << field.shift
    size = BYTES[field.kind]
    places = [field.place(i)[0] for i in range(field.count)]
    return np.concatenate(
        [np.ascontiguousarray(blocks[:, at : at + size]).view(DTYPES[field.kind]) for at in places], 1
    )


@pytest.mark.parametrize(
    "kind", [k for k in types_in_gguf() if k.name in REGULAR], ids=lambda kind: kind.name
)
def test_a_reader_of_the_table_alone_unpacks_as_the_gguf_package_does(kind):
    packed = random_rows(kind)
    fields = LAYOUTS[kind.name].fields
    blocks = packed.numpy().reshape(-1, kind.type_size)
    stored = {name: numbers(blocks, field) for name, field in fields.items()}
    code = (stored["quants"] + stored.get("high", 0) - fields["quants"].zero).astype(np.float32)
    scales = stored.get("scales", np.ones((1, 1), np.int64)) + stored.get("scales_high", 0)
    minima = np.zeros((1, 1), np.int64)
    if kind.name == "Q2_K":
        scales, minima = scales[:, :16], scales[:, 16:]
    with np.errstate(all="ignore"):
        scales = stored["d"].astype(np.float32) * (scales - fields.get("scales", fields["d"]).zero).astype(
            np.float32
        )
        weights = scales[..., None] * code.reshape(len(blocks), scales.shape[1], -1)
        if "dmin" in fields:
            weights = weights - (stored["dmin"].astype(np.float32) * minima.astype(np.float32))[..., None]
        if "m" in fields:
            weights = weights + stored["m"].astype(np.float32)[..., None]
    assert_same_bits(torch.from_numpy(weights.reshape(len(packed), -1)), unpacked_by_gguf(packed, kind))
