"""Encode metadata values as bytes of a little-endian GGUF file."""

import struct
from collections.abc import Sequence
from typing import Any

from torchgguf.container.errors import GGUFError, brief
from torchgguf.container.value_types import SCALARS, ArrayType, MetadataType, Scalar, ValueType, type_name


def encode_value(value: Any, value_type: MetadataType) -> bytes:
    """Encode a value without its type, which the file stores before the value.

    Args:
        value: a plain Python value.
        value_type: the type that the value must match.

    Returns:
        The bytes of the value.

    Raises:
        GGUFError: the value does not match the type.
    """
    if isinstance(value_type, ArrayType):
        return _encode_array(value, value_type.element)
    return _encode_all([value], value_type)


def encode_string(text: str) -> bytes:
    """Encode a string as its length (uint64) and its UTF-8 bytes.

    Surrogate escapes become the bytes that they stand for.

    Raises:
        GGUFError: the string is not valid Unicode.
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise GGUFError(f"the string {brief(text)} is invalid in UTF-8: {error.reason}") from None
    return struct.pack("<Q", len(data)) + data


def type_id(value_type: MetadataType | tuple[ArrayType, ...]) -> ValueType:
    """Return the type id in the file; it is ARRAY for every array, whose element type follows later."""
    return value_type if isinstance(value_type, ValueType) else ValueType.ARRAY


def _encode_array(values: Any, element: MetadataType | tuple[ArrayType, ...]) -> bytes:
    if not isinstance(values, list):
        raise GGUFError(f"{brief(values)} is not a list")
    head = struct.pack("<IQ", type_id(element), len(values))
    if isinstance(element, ValueType):
        return head + _encode_all(values, element)
    inner = element if isinstance(element, tuple) else (element,) * len(values)
    if len(inner) != len(values):
        raise GGUFError(f"the type requires {len(inner)} lists, got {len(values)}")
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
        raise GGUFError(f"{brief(misfit)} is not a {type_name(value_type)}")


def _fits(value: Any, scalar: Scalar) -> bool:
    try:
        struct.pack("<" + scalar.code, value)
    except (struct.error, OverflowError):
        return False
    return True
