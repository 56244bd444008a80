"""Read the parts of a header one after the other, never past its end."""

from __future__ import annotations

import struct
from os import PathLike
from typing import Any

import numpy as np

from torchgguf.container.errors import GGUFError, GGUFTruncatedError
from torchgguf.container.reading.strings import decode_strings, skip_strings
from torchgguf.container.value_types import SCALARS, ArrayType, MetadataType, MetadataValue, ValueType

# Far above any real file: the largest vocabularies have half a million entries in each of three arrays, and
# llama.cpp reads no nested arrays. Any header within these limits is walked in less than a second.
MAX_VALUES = 1 << 22
MAX_ARRAYS = 1 << 15
MAX_DEPTH = 8

_VALUE_TYPES = {int(known): known for known in (*SCALARS, ValueType.STRING, ValueType.ARRAY)}


class Cursor:
    """A position in a header. Its methods read numbers, strings and metadata values from there.

    Every size is compared with the remaining bytes before it is used. Errors name `what` was read, the file
    and the position.

    Args:
        data: the header, and whatever follows it.
        path: the file, for messages.
        file_size: the size of the file in bytes, of which `data` may be a part; by default all is in `data`.

    Attributes:
        order: the byte order of numbers, `"<"` or `">"`, as in `struct`.
        position: the offset of the next byte to read.
    """

    def __init__(self, data: memoryview, path: str | PathLike[str], file_size: int | None = None) -> None:
        self.data, self.path = data, path
        self._end = len(data) if file_size is None else file_size
        self.order = "<"
        self.position = 0
        self._values_left, self._arrays_left = MAX_VALUES, MAX_ARRAYS

    def error(self, reason: str, offset: int | None = None) -> GGUFError:
        """Return a GGUFError for the current position, or for `offset`."""
        return GGUFError(reason, path=self.path, offset=self.position if offset is None else offset)

    def take(self, size: int, what: str) -> int:
        """Skip `size` bytes and return the offset of the first.

        Raises:
            GGUFTruncatedError: fewer bytes are left.
        """
        if size > len(self.data) - self.position:
            raise self.truncated(f"{what} needs {size}", size)
        self.position += size
        return self.position - size

    def truncated(self, need: str, size: int) -> GGUFTruncatedError:
        """Return the error for a need of `size` bytes from here, more than are left."""
        left = next(end for end in (self._end, len(self.data)) if size > end - self.position) - self.position
        reason, needed = f"ends too early: {need} bytes, {left} are left", self.position + size
        return GGUFTruncatedError(reason, needed, path=self.path, offset=self.position)

    def number(self, code: str, what: str) -> Any:
        """Read one number of this `struct` code."""
        return self.numbers(code, what)[0]

    def numbers(self, codes: str, what: str) -> tuple[Any, ...]:
        """Read consecutive numbers of these `struct` codes."""
        layout = self.order + codes
        return struct.unpack_from(layout, self.data, self.take(struct.calcsize(layout), what))

    def string(self, what: str, limit: int) -> str:
        """Read a string; bytes that are not UTF-8 become surrogate escapes.

        Raises:
            GGUFError: the string is longer than `limit` bytes.
        """
        length = self.number("Q", f"the length of {what}")
        if length > limit:
            raise self.error(f"{what} is {length} bytes long, but the limit is {limit}", self.position - 8)
        start = self.take(length, what)
        return str(self.data[start : self.position], "utf-8", "surrogateescape")

    def skip_value(self, type_id: int, what: str, depth: int = 0) -> None:
        """Skip a metadata value and check everything that `value_at` relies on, without allocating memory.

        Args:
            type_id: the type of the value, as the file stores it.
            what: the name of the value in messages.
            depth: how many arrays contain the value.

        Raises:
            GGUFError: the type is unknown, a bool is neither 0 nor 1, or the value exceeds a limit of this
                module.
            GGUFTruncatedError: the header ends before the value does.
        """
        value_type = self._value_type(type_id, what)
        if value_type is not ValueType.ARRAY:
            self._skip_values(value_type, 1, what)
            return
        self._arrays_left -= 1
        if depth == MAX_DEPTH or self._arrays_left < 0:
            limit = f"{MAX_DEPTH} nested arrays" if depth == MAX_DEPTH else f"{MAX_ARRAYS} arrays in total"
            raise self.error(f"{what} exceeds the limit of {limit}")
        element = self._value_type(self.number("I", what), what)
        count = self.number("Q", what)
        if element is not ValueType.ARRAY:
            self._skip_values(element, count, what)
            return
        for _ in range(count):
            self.skip_value(element, what, depth + 1)

    def _value_type(self, type_id: int, what: str) -> ValueType:
        if type_id not in _VALUE_TYPES:
            raise self.error(f"{what} has the unknown value type {type_id}", self.position - 4)
        return _VALUE_TYPES[type_id]

    def _skip_values(self, value_type: ValueType, count: int, what: str) -> None:
        start = self.position
        is_string = value_type is ValueType.STRING
        size = 8 if is_string else SCALARS[value_type].size  # a string takes at least 8 bytes for its length
        self._values_left -= count
        if self._values_left < 0 and count * size <= self._end - start:  # otherwise the file is too short
            raise self.error(f"{what} exceeds the limit of {MAX_VALUES} values in total", start)
        self.take(count * size, what if count == 1 else f"{what} of {count} values")
        if (
            value_type is ValueType.BOOL
            and np.frombuffer(self.data, np.uint8, count, start).max(initial=0) > 1
        ):
            raise self.error(f"{what}: a bool must be 0 or 1", start)
        if is_string:
            walked, self.position = skip_strings(self.data, start, count, self.order == ">")
            if walked < count:
                what = what if count == 1 else f"string {walked} of {what}"
                self.take(self.number("Q", f"the length of {what}"), what)  # raises: this string is too long

    def value_at(self, position: int, value_type: ValueType) -> tuple[MetadataValue, MetadataType]:
        """Return the value at `position`, and its full type.

        Args:
            position: where the value begins; `skip_value` must have checked it.
            value_type: the type of the value; ARRAY for every array.
        """
        self.position = position
        return self._value(value_type)

    def _value(self, value_type: ValueType) -> tuple[MetadataValue, MetadataType]:
        if value_type is ValueType.ARRAY:
            return self._array()
        return self._values(value_type, 1)[0], value_type

    def _array(self) -> tuple[list[MetadataValue], ArrayType]:
        element, count = ValueType(self.number("I", "")), self.number("Q", "")
        if element is not ValueType.ARRAY:
            return self._values(element, count), ArrayType(element)
        inner = [self._array() for _ in range(count)]
        return [values for values, _ in inner], ArrayType.of([array_type for _, array_type in inner])

    def _values(self, value_type: ValueType, count: int) -> list[Any]:
        if value_type is ValueType.STRING:
            strings, self.position = decode_strings(self.data, self.position, count, self.order == ">")
            return strings
        code, size, _ = SCALARS[value_type]
        start = self.take(count * size, "")
        values: list[Any] = np.frombuffer(self.data, self.order + code, count, start).tolist()
        return values
