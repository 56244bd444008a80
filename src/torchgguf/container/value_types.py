"""The types of metadata values: their encoding on disk and their Python types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from gguf.constants import GGUFValueType

ValueType = GGUFValueType

MetadataValue: TypeAlias = bool | int | float | str | list["MetadataValue"]


class Scalar(NamedTuple):
    """A type of fixed size: its code for `struct` and `numpy.dtype`, its size in bytes, its Python types."""

    code: str
    size: int
    python: frozenset[type]


_INT, _FLOAT = frozenset({int}), frozenset({int, float})

SCALARS = {
    ValueType.UINT8: Scalar("B", 1, _INT),
    ValueType.INT8: Scalar("b", 1, _INT),
    ValueType.UINT16: Scalar("H", 2, _INT),
    ValueType.INT16: Scalar("h", 2, _INT),
    ValueType.UINT32: Scalar("I", 4, _INT),
    ValueType.INT32: Scalar("i", 4, _INT),
    ValueType.UINT64: Scalar("Q", 8, _INT),
    ValueType.INT64: Scalar("q", 8, _INT),
    ValueType.FLOAT32: Scalar("f", 4, _FLOAT),
    ValueType.FLOAT64: Scalar("d", 8, _FLOAT),
    ValueType.BOOL: Scalar("?", 1, frozenset({bool})),
}


@dataclass(frozen=True, slots=True)
class ArrayType:
    """The type of an array.

    Attributes:
        element: the type of the elements. On disk every inner array stores its own type; if those types
            differ, or there are no inner arrays, it is a tuple with one type for each inner array.
    """

    element: ValueType | ArrayType | tuple[ArrayType, ...]

    @staticmethod
    def of(inner: Sequence[ArrayType]) -> ArrayType:
        """Return the type of an array whose elements are arrays of these types."""
        return ArrayType(inner[0] if len(set(inner)) == 1 else tuple(inner))

    def __str__(self) -> str:
        if isinstance(self.element, tuple):
            return f"[{', '.join(map(str, self.element)) or '[]'}]"
        return f"[{type_name(self.element)}]"


MetadataType: TypeAlias = ValueType | ArrayType


def type_name(value_type: MetadataType) -> str:
    """Return the display name of a type: `uint32`, `[string]`, `[[int32]]`."""
    return value_type.name.lower() if isinstance(value_type, ValueType) else str(value_type)


def parse_type(text: str) -> MetadataType:
    """Return the type with this display name, the inverse of `type_name`.

    Raises:
        ValueError: there is no such type; the message lists all.
    """
    if text.startswith("[") and text.endswith("]"):
        return ArrayType(parse_type(text[1:-1]))
    names = {type_name(known): known for known in (*SCALARS, ValueType.STRING)}
    if text.lower() not in names:
        raise ValueError(f"unknown type {text!r}; known: {', '.join(names)}, and arrays such as [string]")
    return names[text.lower()]
