"""The kinds of malformed files in llama.cpp's tests/test-gguf.cpp, with its verdicts; the builder is our own.

Where the verdict here is another, `DIFFERENT` says why. Files always contain the bytes of their tensors, so
that each is refused for what its kind is about.
"""

import math
import struct

import pytest
import torch

from torchgguf.container import GGUFError, open_gguf
from torchgguf.container.tensor_types import TENSOR_TYPES
from torchgguf.container.tensors import storage_nbytes

from .raw import ARRAY, BOOL, F16, F32, INT32, Q4_0, Q8_0, STRING, UINT8, UINT32, Raw, string

I8, I64, KINDS_OF_TENSORS, KINDS_OF_VALUES = 24, 27, 99, 13
MAX64 = (1 << 64) - 1
NUMBER = struct.pack("<i", -5)

VALUES = [
    ("my_key_0", UINT8, b"\7"),
    ("my_key_1", INT32, NUMBER),
    ("my_key_2", STRING, string("text")),
    ("my_key_3", ARRAY, struct.pack("<IQ", INT32, 1) + NUMBER),
    ("my_key_4", ARRAY, struct.pack("<IQ", STRING, 2) + string("a") + string("")),
    ("my_key_5", BOOL, b"\1"),
]
# Sizes in bytes are no multiples of 32, so the next tensor needs padding.
TENSORS = [(F32, [5]), (Q4_0, [32]), (F16, [3, 4, 2]), (I8, [7]), (Q8_0, [64, 3])]


def aligned(value, code="<I", type_id=UINT32):
    return ("general.alignment", type_id, struct.pack(code, value))


def tensors(
    alignment=32,
    place=None,
    names="my_tensor_{}",
    dims=None,
    type_id=None,
    offset=None,
    last=0,
    values=VALUES,
):
    """A file with the tensors above, one thing about all of them changed."""
    infos, end = [], 0
    for i, (kind, sizes) in enumerate(TENSORS):
        size = storage_nbytes(tuple(reversed(sizes)), TENSOR_TYPES[kind])
        stated = sizes if dims is None else dims(sizes)
        infos.append(
            (names.format(i), stated, kind if type_id is None else type_id, end if offset is None else offset)
        )
        end += math.ceil(size / alignment) * alignment
    data = bytes(i % 256 for i in range(end - last))
    return Raw(pairs=[*values], tensors=infos, data=data, alignment=place or alignment)


# kind: (file, why llama.cpp refuses it or None, in our words)
KINDS = {
    "header, bad magic": (b"FUGG" + Raw().build()[4:], "begins with b'FUGG'"),
    "header, version 0": (Raw(version=0), "GGUF version 0"),
    "header, version 1": (Raw(version=1), "GGUF version 1"),
    "header, a version to come": (Raw(version=4), "GGUF version 4"),
    "header, number of tensors": (Raw(counts=(MAX64, 0)), "18446744073709551615 tensors need"),
    "header, number of values": (Raw(counts=(0, MAX64)), "18446744073709551615 metadata pairs need"),
    "header, empty": (Raw(), None),
    "value, size of the key": (
        Raw(pairs=[VALUES[0]]).build().replace(struct.pack("<Q", 8), b"\xff" * 8, 1),
        "key 0 is 18446744073709551615 bytes long",
    ),
    "value, empty key": (Raw(pairs=[("", UINT8, b"\7")]), "key 0 is empty"),
    "value, unknown type": (Raw(pairs=[("my_key_0", KINDS_OF_VALUES, b"\7")]), "unknown value type 13"),
    "value, size of a text": (
        Raw(pairs=[("my_key_0", STRING, struct.pack("<Q", MAX64) + b"x")]),
        "needs 18446744073709551615 bytes",
    ),
    "value, duplicate key": (Raw(pairs=[VALUES[0], ("my_key_0", UINT8, b"\1")]), "duplicate metadata key"),
    "value, alignment of 13": (Raw(pairs=[*VALUES, aligned(13)]), "power of two up to .*, got 13"),
    "value, alignment of another type": (
        Raw(pairs=[*VALUES, aligned(32, "<i", INT32)]),
        "must be uint32, got int32",
    ),
    "value, sound": (Raw(pairs=VALUES), None),
    "tensor, long name": (tensors(names="my_tensor_{}" + "_with_a_long_name" * 4), "the limit is 63"),
    "tensor, five dimensions": (tensors(dims=lambda sizes: [*sizes, 1, 1, 1, 1][:5]), "has 5 dimensions"),
    "tensor, size below zero": (
        tensors(dims=lambda sizes: [MAX64] * len(sizes)),
        "rows of 18446744073709551615 elements|ends at byte",
    ),
    "tensor, size of zero": (tensors(dims=lambda sizes: [sizes[0], 0]), None),
    "tensor, elements beyond 64 bits": (
        tensors(dims=lambda sizes: [4 * ((1 << 31) - 1)] * 2, type_id=F32),
        "ends at byte 295147904904",
    ),
    "tensor, bytes beyond 64 bits": (
        tensors(dims=lambda sizes: [1533916891] * 2, type_id=I64),
        "ends at byte 18823208227960847528",
    ),
    "tensor, unknown type": (tensors(type_id=KINDS_OF_TENSORS), "has the type 99"),
    "tensor, bad offset": (tensors(offset=MAX64), "is not aligned"),
    "tensor, duplicate name": (tensors(names="my_tensor"), "duplicate tensor"),
    "tensor, alignment of 13": (tensors(13, values=[*VALUES, aligned(13)]), "power of two up to .*, got 13"),
    "tensor, another alignment than stated": (tensors(1, place=32), "is not aligned to 32"),
    "tensor, sound": (tensors(), None),
    "tensor, alignment of 1": (tensors(1, values=[*VALUES, aligned(1)]), None),
    "data, too few": (tensors(last=1), "refused"),
    "data, alignment of 13": (tensors(13, values=[aligned(13)]), "power of two up to .*, got 13"),
    "data, another alignment than stated": (tensors(1, place=32, values=[]), "is not aligned to 32"),
    "data, sizes that overflow together": (
        tensors(dims=lambda sizes: [(1 << 63) - 64], type_id=I8, offset=0),
        "ends at byte 9223372036854776192",
    ),
    "data, sound": (tensors(values=[]), None),
    "data, alignment of 1": (tensors(1, values=[aligned(1)]), None),
}

# kind: why the verdict here is another
DIFFERENT = {
    "tensor, size of zero": "nothing computes with an empty tensor, and one costs no bytes",
    "data, too few": "only padding lacks, which llama.cpp's loader of models does not read",
}


def test_there_are_all_kinds():
    """33 stand in llama.cpp's list, one more in a comment, for its allocations."""
    assert len(KINDS) == 34
    assert DIFFERENT.keys() < KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_kind(tmp_path, kind):
    file, refusal = KINDS[kind]
    path = tmp_path / "x.gguf"
    path.write_bytes(file if isinstance(file, bytes) else file.build())
    if (refusal is None) is (kind in DIFFERENT):
        with pytest.raises(GGUFError, match=rf"x\.gguf: .*({refusal or 'size below 1'})"):
            open_gguf(path)
        return
    with open_gguf(path) as opened:
        assert len(opened) == len(file.tensors)
        assert all(opened.metadata.get(key, 7) in (7, 1) for key in ("my_key_0", "general.alignment"))
        for name, _, _, offset in file.tensors:
            assert opened[name].reshape(-1).view(torch.uint8)[0] == offset % 256


def test_a_byte_of_a_tensor_that_lacks(tmp_path):
    file = tensors()
    path = tmp_path / "x.gguf"
    last = storage_nbytes((3, 64), TENSOR_TYPES[Q8_0])
    end = len(file.build()) - len(file.data) + file.tensors[-1][3] + last
    path.write_bytes(file.build()[:end])
    open_gguf(path).close()
    path.write_bytes(file.build()[: end - 1])
    with pytest.raises(GGUFError, match="my_tensor_4' ends at byte 812, the file at 811"):
        open_gguf(path)
