"""Files that are wrong in one way each: one GGUFError that names the file, the place and the reason."""

import os
import struct
import time
import tracemalloc

import pytest

from torchgguf.container import GGUFError, GGUFTruncatedError, GGUFWarning, open_gguf, parse_header

from .raw import ARRAY, BOOL, F16, F32, INT32, Q4_0, Q8_0, STRING, UINT8, UINT32, Raw, string

HUGE = 2**63


def pair(key, type_id, value):
    return Raw(pairs=[(key, type_id, value)])


def array(element, count, data=b""):
    return pair("list", ARRAY, struct.pack("<IQ", element, count) + data)


def tensors(*infos, data=bytes(256), **options):
    return Raw(tensors=list(infos), data=data, **options)


def aligned(value, type_id=UINT32, code="<I"):
    return pair("general.alignment", type_id, struct.pack(code, value))


def nested(depth):
    data = struct.pack("<IQ", UINT8, 0)
    for _ in range(depth - 1):
        data = struct.pack("<IQ", ARRAY, 1) + data
    return pair("deep", ARRAY, data)


def entries(count, last):
    """As many sound pairs as that, and one more."""
    return Raw(pairs=[(f"{i:x}", UINT8, b"\0") for i in range(count)] + [last])


CASES = {
    "version 0": (Raw(version=0), "GGUF version 0 is unsupported"),
    "version 1": (Raw(version=1), "GGUF version 1 is unsupported, .*convert the model again"),
    "version 4": (Raw(version=4), "GGUF version 4 is unsupported"),
    "version 4, big-endian": (Raw(version=4, order=">"), "GGUF version 4 is unsupported"),
    "too many pairs": (Raw(counts=(0, 1)), "ends too early: 1 metadata pairs need at least 14 bytes, 8 are"),
    "too many tensors": (Raw(counts=(HUGE, 0)), "ends too early: 9223372036854775808 tensors need"),
    "key too long": (pair("k" * 65536, UINT8, b"\0"), "metadata key 0 is 65536 bytes long"),
    "a key that is not one": (
        pair("k" * 60000, 99, b""),
        r"the value of 'k{50,}\.\.\. has the unknown value",
    ),
    "empty key": (pair("", UINT8, b"\0"), "metadata key 0 is empty"),
    "duplicate key": (Raw(pairs=[("k", UINT8, b"\0")] * 2), "duplicate metadata key 'k'"),
    "unknown value type": (pair("k", 13, bytes(8)), "the value of 'k' has the unknown value type 13"),
    "unknown element type": (array(99, 1, bytes(8)), "the value of 'list' has the unknown value type 99"),
    "bool that is none": (pair("k", BOOL, b"\2"), "a bool must be 0 or 1"),
    "bools that are none": (array(BOOL, 3, b"\1\0\xff"), "a bool must be 0 or 1"),
    "a bool behind many values": (
        Raw(
            pairs=[
                ("many", ARRAY, struct.pack("<IQ", INT32, 2**22 - 9) + b"\1\2\3\4" * (2**22 - 9)),
                ("k", BOOL, b"\2"),
            ]
        ),
        "the value of 'k': a bool must be 0 or 1",
    ),
    "string too long": (pair("k", STRING, struct.pack("<Q", HUGE)), "of 'k' needs 9223372036854775808 bytes"),
    "array too long": (array(INT32, HUGE), "the value of 'list' of 9223372036854775808 values needs"),
    "array of strings too long": (array(STRING, HUGE), "'list' of 9223372036854775808 values needs"),
    "string in an array too long": (
        array(STRING, 2, string("a") + struct.pack("<Q", 99)),
        "string 1 of the value of 'list' needs 99 bytes",
    ),
    "array of arrays too long": (array(ARRAY, HUGE, bytes(12)), "the value of 'list' needs"),
    "arrays too deep": (nested(9), "the value of 'deep' exceeds the limit of 8 nested arrays"),
    "values too many": (
        array(UINT8, 2**22 + 1, bytes(2**22 + 1)),
        "'list' exceeds the limit of 4194304 values",
    ),
    "the last of many pairs": (entries(2**15 - 1, ("last", 99, b"")), "'last' has the unknown value type 99"),
    "the last of many tensors": (
        tensors(
            *((f"{i:x}", [1], F32, 32 * i) for i in range(2**15 - 1)),
            ("last", [1], F32, 0),
            data=bytes(2**20),
        ),
        "tensors '0' and 'last' overlap",
    ),
    "the last of many arrays": (
        array(ARRAY, 2**15 - 1, struct.pack("<IQ", UINT8, 0) * (2**15 - 2) + struct.pack("<IQ", 99, 0)),
        "the value of 'list' has the unknown value type 99",
    ),
    "pairs too many": (
        entries(2**15, ("more", UINT8, b"\0")),
        "32769 metadata pairs exceed the limit of 32768",
    ),
    "tensors too many": (
        tensors(*[("w", [1], F32, 0)] * (2**15 + 1)),
        "32769 tensors exceed the limit of 32768",
    ),
    "arrays too many": (
        array(ARRAY, 2**15, struct.pack("<IQ", UINT8, 0) * 2**15),
        "'list' exceeds the limit of 32768 arrays in total",
    ),
    "alignment 0": (aligned(0), "general.alignment must be a power of two up to 2097152, got 0"),
    "alignment 48": (aligned(48), "general.alignment must be a power of two up to 2097152, got 48"),
    "alignment of 4 MB": (aligned(2**22), "general.alignment must be a power of two .*, got 4194304"),
    "alignment of 2 GB": (aligned(2**31), "general.alignment must be a power of two .*, got 2147483648"),
    "alignment of another type": (aligned(32, 10, "<Q"), "general.alignment must be uint32, got uint64"),
    "name too long": (
        tensors(("n" * 64, [1], F32, 0)),
        "the name of tensor 0 is 64 bytes long, but the limit is 63",
    ),
    "duplicate tensor": (tensors(("w", [8], F32, 0), ("w", [8], F32, 32)), "duplicate tensor 'w'"),
    "5 dimensions": (tensors(("w", [1] * 5, F32, 0)), "tensor 'w' has 5 dimensions, but the limit is 4"),
    "tensor type -1": (tensors(("w", [], 2**32 - 1, 0)), "tensor 'w' has the unknown type 4294967295"),
    "no elements": (tensors(("w", [4, 0], F32, 0)), r"tensor 'w': its shape \(0, 4\) has a size below 1"),
    "tensor type of 2023": (
        tensors(("w", [32], 5, 0)),
        "tensor 'w' has the type 5: Q4_3, removed .* in 2023",
    ),
    "removed tensor type": (
        tensors(("w", [32], 31, 0)),
        "'w' has the type 31: Q4_0_4_4, removed from ggml in",
    ),
    "tensor type of a fork": (
        tensors(("w", [32], 137, 0)),
        r"'w' has the type 137, written by ik_llama\.cpp \(IQ2_K\): no other program reads it",
    ),
    "tensor type of two": (
        tensors(("w", [32], 36, 0)),
        r"type 36: IQ4_NL_4_4, removed from ggml in 2024: .* to IQ4_NL; or written by bitnet\.cpp \(I2_S\)",
    ),
    "half a block": (tensors(("w", [48, 2], Q8_0, 0)), "'w': its rows of 48 elements .* Q8_0 blocks of 32"),
    "a packed scalar": (tensors(("w", [], Q4_0, 0)), "'w': its rows of 1 elements"),
    "misaligned": (tensors(("w", [8], F32, 8)), "tensor 'w' is not aligned to 32 bytes"),
    "past the end": (tensors(("w", [8], F32, 256)), "tensor 'w' ends at byte .* the file at .*incomplete"),
    "far past the end": (tensors(("w", [8], F32, 2**64 - 32)), "tensor 'w' ends at byte"),
    "larger than anything": (tensors(("w", [2**62, 2**62, 2**62], F32, 0)), "tensor 'w' ends at byte"),
    "wraps around": (tensors(("w", [2**62], F32, 0)), "tensor 'w' ends at byte"),
    "overlapping": (tensors(("a", [9], F32, 0), ("b", [8], F32, 32)), "tensors 'a' and 'b' overlap"),
    "one in the other": (tensors(("a", [8], F32, 32), ("b", [64], F16, 0)), "tensors 'b' and 'a' overlap"),
    "the same place": (tensors(("a", [8], F32, 0), ("b", [8], F32, 0)), "tensors 'a' and 'b' overlap"),
}

NOT_GGUF = {
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a": "a Git LFS pointer",
    "<!DOCTYPE html><html>": "an HTML page",
    "\n<html lang='en'>": "an HTML page",
    "PK\x03\x04\x00\x00": "a ZIP archive or a PyTorch checkpoint",
    '\x40\x00\x00\x00\x00\x00\x00\x00{"__metadata__"': "safetensors",
    "tjgg\x03\x00\x00\x00": "GGJT, a format older than GGUF",
    '{"error": "not found"}': "JSON",
    "\x00\x00\x00\x00\x00": "zeros",
    "hello": "it begins with b'hell'",
}


def refused(path, content, **checks):
    path.write_bytes(content)
    with pytest.raises(GGUFError, **checks) as caught:
        open_gguf(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 200
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_one_error_that_names_the_culprit_in_bounded_time_and_memory(tmp_path, name):
    raw, message = CASES[name]
    content = raw.build()
    started = time.thread_time()  # threads of other tests' libraries may still be spinning
    refused(tmp_path / "bad.gguf", content, match=message)
    assert time.thread_time() - started < 1
    tracemalloc.start()
    refused(tmp_path / "bad.gguf", content, match=message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000 + 5 * len(content)


@pytest.mark.parametrize("content", NOT_GGUF)
def test_what_is_no_gguf_file_is_told_apart(tmp_path, content):
    refused(tmp_path / "x.gguf", content.encode("latin-1"), match=f"not a GGUF file: .*{NOT_GGUF[content]}")


def test_every_beginning_of_a_file_is_recognized_as_incomplete(tmp_path):
    raw = tensors(("w", [8], F32, 0), data=bytes(32))
    raw.pairs = [("text", STRING, string("abc")), ("list", ARRAY, raw.strings("a", "bc"))]
    header, whole = raw.header(), raw.build()
    for size in range(1, len(header)):
        assert isinstance(refused(tmp_path / "x.gguf", whole[:size], match="early"), GGUFTruncatedError)
        with pytest.raises(GGUFTruncatedError):
            parse_header(whole[:size])
    for size in range(len(header), len(whole)):
        refused(tmp_path / "x.gguf", whole[:size], match="tensor 'w' ends .* is it incomplete")
    (tmp_path / "x.gguf").write_bytes(whole)
    assert open_gguf(tmp_path / "x.gguf").metadata["list"] == ["a", "bc"]


def test_a_header_alone_can_be_parsed():
    raw = tensors(("w", [8], F32, 0), data=bytes(32))
    raw.pairs = [("text", STRING, string("abc"))]
    header = parse_header(raw.header())
    assert header.metadata == {"text": "abc"}
    assert header.tensors["w"].shape == (8,)
    assert header.tensors["w"].offset == header.data_offset == len(raw.build()) - 32


def test_a_wrong_count_in_a_large_file_costs_nothing(tmp_path):
    """The rest of a model is there to be taken for values; it must not be."""
    raw = pair("list", ARRAY, struct.pack("<IQ", INT32, 4_000_000))
    raw.counts = (0, 2)
    content = raw.header() + b"\xff" * 16_000_100
    started = time.monotonic()
    tracemalloc.start()
    with pytest.raises(GGUFError, match="metadata key 1"):
        parse_header(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - started < 1
    assert peak < 1_000_000


def test_an_empty_file(tmp_path):
    refused(tmp_path / "x.gguf", b"", match="is empty")


def test_what_is_no_file(tmp_path):
    with pytest.raises(GGUFError, match=r"is a folder: name the \.gguf file"):
        open_gguf(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GGUFError, match="is not a regular file"):
        open_gguf(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="missing"):
        open_gguf(tmp_path / "missing.gguf")


def test_bytes_that_belong_to_nothing_are_told(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(tensors(("w", [8], F32, 0), data=bytes(100)).build())
    with pytest.warns(GGUFWarning, match=r"x\.gguf: 68 bytes belong to no tensor") as caught:
        open_gguf(path)
    assert caught[0].filename == __file__


def test_a_closed_file_says_so(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(tensors(("w", [8], F32, 0), data=bytes(32)).build())
    with open_gguf(path) as file, pytest.raises(KeyError, match="nothing"):
        file["nothing"]
    with pytest.raises(GGUFError, match="closed"):
        file["w"]
