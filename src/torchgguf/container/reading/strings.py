"""Runs of strings, each a 64-bit length and its bytes: natively where the extension is built, else in Python.

Bytes that are no UTF-8 become surrogate escapes, so that encoding with `surrogateescape` gives them back.
"""

import struct

from typing_extensions import Buffer

from torchgguf._extension import native


def skip_strings_python(buffer: Buffer, offset: int, count: int, big_endian: bool) -> tuple[int, int]:
    """How many of `count` strings from `offset` on lie inside the buffer, and where the next one begins."""
    data = memoryview(buffer)
    length_at = struct.Struct(">Q" if big_endian else "<Q").unpack_from
    for walked in range(count):
        left = len(data) - offset - 8
        if left < 0 or (length := length_at(data, offset)[0]) > left:
            return walked, offset
        offset += 8 + length
    return count, offset


def decode_strings_python(buffer: Buffer, offset: int, count: int, big_endian: bool) -> tuple[list[str], int]:
    """The `count` strings from `offset` on, and where they end. ValueError if the buffer ends first."""
    if skip_strings_python(buffer, offset, count, big_endian)[0] != count:
        raise ValueError("the strings run past the end of the buffer")
    data = memoryview(buffer)
    length_at = struct.Struct(">Q" if big_endian else "<Q").unpack_from
    strings = []
    for _ in range(count):
        (length,) = length_at(data, offset)
        strings.append(str(data[offset + 8 : offset + 8 + length], "utf-8", "surrogateescape"))
        offset += 8 + length
    return strings, offset


if native is not None:
    decode_strings, skip_strings = native.decode_strings, native.skip_strings
else:
    decode_strings, skip_strings = decode_strings_python, skip_strings_python

__all__ = ["decode_strings", "decode_strings_python", "skip_strings", "skip_strings_python"]
