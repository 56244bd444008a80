"""Metadata values as the bytes of a little-endian GGUF file."""

import struct
from collections.abc import Sequence
from typing import Any

from torchgguf.container.errors import GGUFError, brief
from torchgguf.container.value_types import SCALARS, ArrayType, MetadataType, Scalar, ValueType, type_name


def encode_value(value: Any, value_type: MetadataType) -> bytes:
    """A value without its type: that comes before it, in the pair or in the array that holds it."""
    if isinstance(value_type, ArrayType):
        return _encode_array(value, value_type.element)
    return _encode_all([value], value_type)


def encode_string(text: str) -> bytes:
    """Length and UTF-8 bytes; surrogate escapes become the bytes that they stand for."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise GGUFError(f"the string {brief(text)} cannot be written as UTF-8: {error.reason}") from None
    return struct.pack("<Q", len(data)) + data


def type_id(value_type: MetadataType | tuple[ArrayType, ...]) -> ValueType:
    """What stands on disk for a type; what kind of array it is, the array itself says."""
    return value_type if isinstance(value_type, ValueType) else ValueType.ARRAY


def _encode_array(values: Any, element: MetadataType | tuple[ArrayType, ...]) -> bytes:
    if not isinstance(values, list):
        raise GGUFError(f"{brief(values)} is not a list")
    head = struct.pack("<IQ", type_id(element), len(values))
    if isinstance(element, ValueType):
        return head + _encode_all(values, element)
    inner = element if isinstance(element, tuple) else (element,) * len(values)
    if len(inner) != len(values):
        raise GGUFError(f"{len(values)} lists do not fit a type that says {len(inner)} of them")
    return head + b"".join(map(encode_value, values, inner))


def _encode_all(values: Sequence[Any], value_type: ValueType) -> bytes:
    if value_type is ValueType.ARRAY:
        raise GGUFError("an array's type must say what it holds, as in ArrayType(ValueType.STRING)")
    if value_type is ValueType.STRING:
        _check(values, frozenset({str}), value_type)
        return b"".join(map(encode_string, values))
    scalar = SCALARS[value_type]
    _check(values, scalar.python, value_type)
    try:
        return struct.pack(f"<{len(values)}{scalar.code}", *values)
    except (struct.error, OverflowError):
        misfit = next(value for value in values if not _fits(value, scalar))
        raise GGUFError(f"{brief(misfit)} does not fit {type_name(value_type)}") from None


def _check(values: Sequence[Any], allowed: frozenset[type], value_type: ValueType) -> None:
    if not set(map(type, values)) <= allowed:
        misfit = next(value for value in values if type(value) not in allowed)
        raise GGUFError(f"{brief(misfit)} is no {type_name(value_type)}")


def _fits(value: Any, scalar: Scalar) -> bool:
    try:
        struct.pack("<" + scalar.code, value)
    except (struct.error, OverflowError):
        return False
    return True
