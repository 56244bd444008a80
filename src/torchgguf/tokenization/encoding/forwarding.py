"""Attributes and methods of an object that are those of its parts, typed and documented as there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result", covariant=True)
Value = TypeVar("Value")


class Method(Protocol[Arguments, Result]):
    """A function as an attribute of a class, where it is bound to objects."""

    def __get__(self, instance: Any, owner: Any = None, /) -> Callable[Arguments, Result]:
        """Return the function bound to the object."""


def part_method(
    part: str, method: Callable[Concatenate[Any, Arguments], Result]
) -> Method[Arguments, Result]:
    """Return a method that calls this method of a part.

    Args:
        part: the attribute that holds the part.
        method: the method, as an attribute of the part's class.
    """

    @functools.wraps(method)
    def forwarded(self: Any, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return method(getattr(self, part), *args, **kwargs)

    return cast(Method[Arguments, Result], forwarded)


class PartAttribute(Generic[Value]):
    """An attribute that reads and sets the attribute of a part with the same name."""

    def __init__(self, part: str) -> None:
        """Name the attribute that holds the part."""
        self._part = part

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        value: Value = getattr(getattr(instance, self._part), self._name)
        return value

    def __set__(self, instance: object, value: Value) -> None:
        setattr(getattr(instance, self._part), self._name, value)
