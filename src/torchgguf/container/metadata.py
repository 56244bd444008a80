"""Metadata: a dict that stores the type of each value on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from torchgguf.container.encoder import encode_value
from torchgguf.container.errors import GGUFError, brief
from torchgguf.container.value_types import SCALARS, ArrayType, MetadataType, MetadataValue, ValueType

_INTEGERS = (
    (ValueType.UINT32, 0, 2**32),
    (ValueType.INT32, -(2**31), 2**31),
    (ValueType.UINT64, 0, 2**64),
    (ValueType.INT64, -(2**63), 2**63),
)
_PLAIN = {bool: ValueType.BOOL, float: ValueType.FLOAT32, str: ValueType.STRING}
_NUMPY = {np.dtype(scalar.code): value_type for value_type, scalar in SCALARS.items()}


class Metadata(dict[str, MetadataValue]):
    """The key-value pairs of a GGUF file in file order, as plain Python values.

    A new key gets the type that `infer_type` returns for its value, unless `types` or `set` states another.
    An existing key keeps its type. Values from another `Metadata` keep their types.

    Args:
        values: the pairs.
        types: types of keys on disk, where the inferred ones are not wanted.

    Attributes:
        types: the type of each key on disk.

    Raises:
        GGUFError: a value does not fit the type of its key, or no type matches it.
    """

    def __init__(
        self,
        values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        types: Mapping[str, MetadataType] | None = None,
    ) -> None:
        super().__init__()
        self.types: dict[str, MetadataType] = dict(types or {})
        self.update(values)

    def set(self, key: str, value: Any, value_type: MetadataType | None = None) -> None:
        """Set a value and its type on disk.

        Args:
            key: the key; a new one goes to the end.
            value: the value, as a Python or NumPy value.
            value_type: such as `ValueType.UINT8` or `ArrayType(ValueType.INT32)`; by default inferred from
                the value.

        Raises:
            GGUFError: the value does not fit the type.
        """
        plain = _plain(value)
        try:
            value_type = infer_type(value) if value_type is None else value_type
            encode_value(plain, value_type)
        except GGUFError as error:
            raise GGUFError(f"metadata key {brief(key)}: {error}") from None
        self.set_unchecked(key, plain, value_type)

    def set_unchecked(self, key: str, value: MetadataValue, value_type: MetadataType) -> None:
        """Set a plain value without a check that it fits its type."""
        super().__setitem__(key, value)
        self.types[key] = value_type

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value, self.types.get(key))

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self.types[key]

    def update(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:  # type: ignore[override]
        """Set all pairs of `other`, in its order."""
        if isinstance(other, Metadata):
            for key, value in other.items():
                self.set_unchecked(key, value, other.types[key])
            other = ()
        for key, value in dict(other, **more).items():
            self[key] = value

    def copy(self) -> Metadata:
        """Return a shallow copy: it shares the values, but has its own keys and types."""
        return Metadata(self)

    def __or__(self, other: Mapping[str, Any]) -> Metadata:  # type: ignore[override]
        result = self.copy()
        result.update(other)
        return result

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Metadata:  # type: ignore[override]
        self.update(other)
        return self

    # The methods of dict bypass __setitem__ and __delitem__, and would leave the types unchanged.

    def setdefault(self, key: str, default: Any) -> MetadataValue:
        """Return the value of a key; set it to `default` first if the key is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Remove the key and its type, and return its value."""
        value = super().pop(key, *default)
        self.types.pop(key, None)
        return value

    def popitem(self) -> tuple[str, MetadataValue]:
        """Remove the last key and its type, and return the key and its value."""
        key, value = super().popitem()
        del self.types[key]
        return key, value

    def clear(self) -> None:
        """Remove all keys and their types."""
        super().clear()
        self.types.clear()

    def __reduce__(self) -> tuple[type[Metadata], tuple[dict[str, Any], dict[str, MetadataType]]]:
        return Metadata, (dict(self), self.types)


def infer_type(value: Any) -> MetadataType:
    """Return the type for a value whose key has no type yet.

    Args:
        value: bool, str, int, float, a NumPy value, or a list or tuple of these.

    Returns:
        BOOL for bool, STRING for str, FLOAT32 for float, the first of UINT32, INT32, UINT64 and INT64 that
        fits an int, the type of the dtype for a NumPy value, and an `ArrayType` for a list.

    Raises:
        GGUFError: no type matches, the list is empty, or its items have different types.
    """
    if isinstance(value, np.generic | np.ndarray):
        element = _NUMPY.get(value.dtype)
        if element is not None:
            return _nested(element, value.ndim)
        value = _plain(value)
    if isinstance(value, list | tuple):
        return ArrayType(_infer_element(value))
    for kind, value_type in _PLAIN.items():
        if isinstance(value, kind):
            return value_type
    if isinstance(value, int):
        return _integer_type(value, value)
    raise GGUFError(f"a {type(value).__name__} has no GGUF type")


def _infer_element(values: list[Any] | tuple[Any, ...]) -> ValueType | ArrayType | tuple[ArrayType, ...]:
    kinds = set(map(type, values))
    if not kinds:
        raise GGUFError("an empty list has no element type: pass its type to Metadata")
    if kinds == {int}:
        return _integer_type(min(values), max(values))
    if kinds == {int, float}:
        return ValueType.FLOAT32
    if len(kinds) == 1 and kinds <= _PLAIN.keys():
        return _PLAIN[kinds.pop()]
    inferred = [infer_type(value) for value in values]
    arrays = [value_type for value_type in inferred if isinstance(value_type, ArrayType)]
    if len(arrays) == len(inferred):
        return ArrayType.of(arrays).element
    if len(set(inferred)) > 1:
        raise GGUFError(f"a list must hold one type, got {' and '.join(sorted(k.__name__ for k in kinds))}")
    return inferred[0]


def _integer_type(low: int, high: int) -> ValueType:
    for value_type, first, end in _INTEGERS:
        if first <= low and high < end:
            return value_type
    raise GGUFError(f"{low if low < 0 else high} fits no 64-bit integer")


def _nested(element: ValueType, depth: int) -> MetadataType:
    value_type: MetadataType = element
    for _ in range(depth):
        value_type = ArrayType(value_type)
    return value_type


def _plain(value: Any) -> Any:
    """Convert a value to plain bool, int, float, str or list, without subclasses, NumPy types and tuples."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        simple = type(value) is list and set(map(type, value)) <= {bool, int, float, str}
        return value if simple else [_plain(item) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return str.__str__(value) if isinstance(value, str) else value
