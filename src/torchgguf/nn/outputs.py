"""Base of what models and `generate` return: dataclasses that can be indexed and unpacked like tuples."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, dataclass_transform

from torch.utils import _pytree as pytree

from torchgguf.nn.second_names import SECOND_NAMES, accept_second_names, first_name


@dataclass_transform()
class ModelOutput:
    """Base of all outputs, whose subclasses are dataclasses by being defined.

    Fields that are None count for nothing: as names, by position or unpacked. Fields with a second name (see
    `second_names`) are constructed, read and set by either name; names and positions show the first only.
    """

    def __init_subclass__(cls) -> None:
        """Make a dataclass of the class, add second names, and register it with torch.

        Torch finds the tensors inside, as FSDP does to know when gradients come back.
        """
        dataclass(cls)
        cls.__init__ = accept_second_names(cls.__init__)  # type: ignore[method-assign]
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for second, first in SECOND_NAMES.items():
            if first in names:
                setattr(cls, second, _alias(first))
        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output.keys())),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
        )

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are there, in the order of the fields."""
        return tuple(value for _, value in self.items())

    def keys(self) -> tuple[str, ...]:
        """Return the names of the values that are there."""
        return tuple(name for name, _ in self.items())

    def values(self) -> tuple[Any, ...]:
        """Return the values that are there; the same as `to_tuple`."""
        return self.to_tuple()

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return names and values of what is there."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return tuple((name, value) for name, value in pairs if value is not None)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of this name, or `default` if it is not there."""
        return dict(self.items()).get(first_name(key), default)

    def pop(self, key: str, *default: Any) -> Any:
        """Return the value of this name, and set its field to None.

        Args:
            key: the name.
            default: returned if the value is not there.

        Raises:
            KeyError: the value is not there, and there is no default.
        """
        if key not in self:
            if default:
                return default[0]
            raise KeyError(key)
        value = self[key]
        self[key] = None
        return value

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return a value by name, or by its place among those that are there."""
        if not isinstance(key, str):
            return self.to_tuple()[key]
        return dict(self.items())[first_name(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the field of this name.

        Raises:
            KeyError: the output has no such field.
        """
        if (name := first_name(key)) not in {field.name for field in fields(self)}:  # type: ignore[arg-type]
            raise KeyError(key)
        setattr(self, name, value)

    def __contains__(self, key: str) -> bool:
        """Return whether the value of this name is there."""
        return first_name(key) in self.keys()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values that are there, as a tuple does."""
        return iter(self.to_tuple())

    def __len__(self) -> int:
        """Count the values that are there."""
        return len(self.items())


def _alias(name: str) -> property:
    def read(output: ModelOutput) -> Any:
        return getattr(output, name)

    def write(output: ModelOutput, value: Any) -> None:
        setattr(output, name, value)

    return property(read, write)
