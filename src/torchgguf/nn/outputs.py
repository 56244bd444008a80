"""Base of what models and `generate` return: dataclasses that can be indexed and unpacked like tuples."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch.utils import _pytree as pytree


@dataclass
class ModelOutput:
    """Base of all outputs. Fields that are None count for nothing: as names, by position or unpacked."""

    def __init_subclass__(cls) -> None:
        """Let torch find the tensors inside, as FSDP does to know when gradients come back."""
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
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return tuple((name, value) for name, value in pairs if value is not None)

    def __getitem__(self, key: int | slice | str) -> Any:
        """Get a value by name, or by its place among those that are there."""
        if not isinstance(key, str):
            return self.to_tuple()[key]
        return dict(self.items())[key]

    def __contains__(self, key: str) -> bool:
        """Tell whether the value of this name is there."""
        return key in self.keys()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values that are there, as a tuple does."""
        return iter(self.to_tuple())

    def __len__(self) -> int:
        """Count the values that are there."""
        return len(self.items())
