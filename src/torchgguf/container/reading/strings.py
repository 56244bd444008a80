"""Decode sequences of strings, each a 64-bit length and its bytes: natively if built, else in Python.

Bytes that are not UTF-8 become surrogate escapes, so that encoding with `surrogateescape` restores them.
"""

import struct

from typing_extensions import Buffer

from torchgguf._extension import native


def skip_strings_python(buffer: Buffer, offset: int, count: int, big_endian: bool) -> tuple[int, int]:
    """Skip strings that lie completely inside a buffer.

    Args:
        buffer: the bytes.
        offset: the position of the first string.
        count: the number of strings.
        big_endian: the byte order of the lengths.

    Returns:
        How many of the strings lie inside the buffer, and the position after the last of these.
    """
    data = memoryview(buffer)
    length_at = struct.Struct(">Q" if big_endian else "<Q").unpack_from
    for walked in range(count):
        left = len(data) - offset - 8
        if left < 0 or (length := length_at(data, offset)[0]) > left:
            return walked, offset
        offset += 8 + length
    return count, offset


def decode_strings_python(buffer: Buffer, offset: int, count: int, big_endian: bool) -> tuple[list[str], int]:
    """Decode strings.

    Args:
        buffer: the bytes.
        offset: the position of the first string.
        count: the number of strings.
        big_endian: the byte order of the lengths.

    Returns:
        The strings, and the position after the last.

    Raises:
        ValueError: the buffer ends before the last string does.
    """
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
