"""Config maps: rules that map metadata keys to config fields, in both directions."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from torchgguf.container import GGUFError, TensorInfo
from torchgguf.container.errors import brief
from torchgguf.models.core.neutral_keys import is_neutral


@dataclass(frozen=True)
class Header:
    """What rules read: the architecture's keys without their prefix, the headers of tensors, and its name."""

    values: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    load: Callable[[str], Tensor]
    architecture: str = ""

    @cached_property
    def largest_dimension(self) -> int:
        """The largest dimension of any tensor."""
        return max((max(info.shape, default=0) for info in self.tensors.values()), default=0)

    def numbers(self, name: str, count: int) -> Tensor:
        """Load a tensor of numbers that belong to the config, in float32.

        Args:
            name: of the tensor.
            count: of the numbers that other parts of the file imply. It is compared before loading.

        Raises:
            GGUFError: the tensor is not a vector of so many floating-point numbers.
        """
        info = self.tensors[name]
        if info.shape != (count,):
            raise GGUFError(f"tensor {name} has shape {info.shape}, expected {(count,)}")
        if not info.dtype.is_floating_point:
            raise GGUFError(f"tensor {name} must be of floating-point numbers, got {info.type.name}")
        return self.load(name).float()

    def get(self, key: str, default: Any) -> Any:
        """Return the value under a key, or `default`.

        Raises:
            GGUFError: its type is not that of `default`. An int is valid for a float.
        """
        value = self.values.get(key, default)
        if type(value) is type(default) or (type(default) is float and type(value) is int):
            return value
        raise GGUFError(f"{key} must be one {type(default).__name__}, got {brief(value)}")

    def positive(self, key: str, kind: type[int] | type[float]) -> Any:
        """Return the number under a key.

        Raises:
            GGUFError: it is missing, not a number of this type, not finite, or not above zero.
        """
        if key not in self.values:
            raise GGUFError(f"{key} is missing")
        value = self.get(key, kind())
        if not 0 < value < math.inf:
            raise GGUFError(f"{key} must be above 0 and finite, got {value}")
        return kind(value)


# Whether each layer has a state instead of attention; llama.cpp's own writer states no heads for these.
RECURRENT_LAYERS = "attention.recurrent_layers"


def by_layer(numbers: Iterable[Any]) -> list[Any]:
    """Return a list of numbers, one a layer, whose type in files is that of llama.cpp's converter: INT32."""
    return [np.int32(number) for number in numbers]


class Rule:
    """Maps metadata keys and tensors, which no other rule maps, to config fields."""

    keys: Sequence[str] = ()
    tensors: Sequence[str] = ()

    def read(self, header: Header) -> dict[str, Any]:
        """Return the config fields that the header states."""
        return {}

    def write(self, config: Any) -> dict[str, Any]:
        """Return the metadata that states the config's fields, keys without the architecture's prefix."""
        return {}

    def write_tensors(self, config: Any) -> dict[str, Tensor]:
        """Return the tensors that state the config's fields."""
        return {}

    def complete(self, config: Any, names: Collection[str]) -> None:
        """Set fields that follow from the names of a checkpoint's tensors."""

    def in_models(self, name: str, config: Any) -> str:
        """Return the name of a tensor in weight maps, given that in checkpoints without prefix."""
        return name

    def in_checkpoints(self, name: str, config: Any) -> str | None:
        """Return the name in checkpoints of a tensor of a layer that is kept; None: as in weight maps."""
        return None

    def is_kept(self, config: Any, layer_idx: int, name: str, in_new: bool) -> bool:
        """Return whether models keep a tensor of a layer, but do not run it, as in `Architecture.is_kept`."""
        return False


def largest_dimension(header: Header) -> int:
    """Return the largest dimension of any tensor: an upper bound of all sizes of a model."""
    return header.largest_dimension


def tensor_count(header: Header) -> int:
    """Return the number of tensors: an upper bound of the number of layers."""
    return len(header.tensors)


@dataclass(frozen=True)
class Field(Rule):
    """Maps one key to one config field of the same value.

    `limit` returns the largest valid value, which bounds what a malformed file can reserve.
    """

    key: str
    name: str
    kind: type[int] | type[float] = int
    required: bool = True
    limit: Callable[[Header], int] | None = None
    keys: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        """Set the key."""
        object.__setattr__(self, "keys", (self.key,))

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number."""
        if not self.required and not self.is_stated(header):
            return {}
        value = self.number(header)
        if self.limit is not None and value is not None and value > (limit := self.limit(header)):
            raise GGUFError(f"{self.key} = {value} is invalid: the {self.limit.__name__} is {limit}")
        return {self.name: value}

    def is_stated(self, header: Header) -> bool:
        """Return whether there is a number; llama.cpp's own writer states 0 where it follows from tensors."""
        stated = header.values.get(self.key, 0)
        return type(stated) not in (int, float) or stated != 0

    def number(self, header: Header) -> Any:
        """Return the number under the key, above zero."""
        return header.positive(self.key, self.kind)

    def write(self, config: Any) -> dict[str, Any]:
        """Write the number, unless it is None in the config."""
        value = getattr(config, self.name)
        return {} if value is None else {self.key: self.kind(value)}


@dataclass(frozen=True)
class NoneIfZero(Field):
    """Maps one key to one config field of the same value; 0 is None."""

    def number(self, header: Header) -> Any:
        """Return the number under the key, or None."""
        return super().number(header) if header.get(self.key, self.kind()) else None


@dataclass(frozen=True)
class SecondKey(Field):
    """Maps another key to a field that one key maps already; 0 is no key."""

    required: bool = False

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number."""
        return super().read(header) if header.get(self.key, self.kind()) else {}


@dataclass(frozen=True)
class MaybeZero(Field):
    """Maps one key to one config field of the same value; zero is as no key, if tensors imply the field."""

    required: bool = False

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number, unless it is zero."""
        return super().read(header) if header.values.get(self.key) != 0 else {}


@dataclass(frozen=True)
class Count(Field):
    """Maps one key to one config field of the same value, which may be zero."""

    def is_stated(self, header: Header) -> bool:
        """Return whether there is a number."""
        return self.key in header.values

    def number(self, header: Header) -> int:
        """Return the number under the key, or zero."""
        value = header.get(self.key, 0)
        if value < 0:
            raise GGUFError(f"{self.key} must be 0 or above, got {value}")
        return int(value)


@dataclass(frozen=True)
class Flag(Rule):
    """Maps one key to one config field that is true or false.

    Attributes:
        key: the key.
        name: of the field.
        default: the value that readers assume if there is no key.
        always: whether the default is written, too.
    """

    key: str
    name: str
    default: bool = False
    always: bool = True
    keys: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        """Set the key."""
        object.__setattr__(self, "keys", (self.key,))

    def read(self, header: Header) -> dict[str, Any]:
        """Read the value."""
        return {self.name: header.get(self.key, self.default)}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the value."""
        value = bool(getattr(config, self.name))
        return {self.key: value} if self.always or value != self.default else {}


@dataclass(frozen=True)
class Only(Rule):
    """A key with one supported value, which changes nothing."""

    key: str
    value: Any
    reason: str
    keys: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        """Set the key."""
        object.__setattr__(self, "keys", (self.key,))

    def read(self, header: Header) -> dict[str, Any]:
        """Refuse every other value."""
        value = header.values.get(self.key, self.value)
        if value != self.value:
            raise GGUFError(f"{self.key} = {brief(value)}: {self.reason}")
        return {}


@dataclass(frozen=True)
class Constant(Only):
    """A key with one supported value, which is written, too."""

    def write(self, config: Any) -> dict[str, Any]:
        """Write the value."""
        return {self.key: self.value}


@dataclass(frozen=True)
class Harmless(Rule):
    """Keys that do not change what the model computes."""

    keys: Sequence[str]


@dataclass(frozen=True)
class Stated(Rule):
    """A key that readers want, and that changes nothing: new files state one value.

    Attributes:
        key: the key.
        value: the value in new files.
    """

    key: str
    value: Any
    keys: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        """Set the key."""
        object.__setattr__(self, "keys", (self.key,))

    def write(self, config: Any) -> dict[str, Any]:
        """Write the value."""
        return {self.key: self.value}


@dataclass(frozen=True)
class Implied(Rule):
    """A field without a key: it follows from the names and shapes of the tensors."""

    name: str
    infer: Callable[[Mapping[str, TensorInfo]], Any]

    def read(self, header: Header) -> dict[str, Any]:
        """Infer the field."""
        try:
            return {self.name: self.infer(header.tensors)}
        except (KeyError, IndexError) as error:
            raise GGUFError(f"{self.name} does not follow from the tensors: {error} is missing") from None


@dataclass(frozen=True)
class Unwritable(Rule):
    """A field for which GGUF has no key: readers assume one value."""

    name: str
    value: Any

    def write(self, config: Any) -> dict[str, Any]:
        """Refuse every other value."""
        if (value := getattr(config, self.name)) != self.value:
            raise ValueError(f"GGUF does not support {self.name}={value!r}: readers assume {self.value!r}")
        return {}


@dataclass(frozen=True)
class Assumed(Unwritable):
    """A field for which GGUF has no key, and whose default is not the value that readers assume."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the value that readers assume."""
        return {self.name: self.value}


def read_fields(rules: Sequence[Rule], header: Header) -> dict[str, Any]:
    """Return what all rules read.

    Raises:
        GGUFError: a key is missing, invalid or unknown to all rules, or two keys contradict each other. The
            message names all of them.
    """
    fields: dict[str, Any] = {}
    problems = []
    for rule in rules:
        try:
            stated = rule.read(header)
        except GGUFError as error:
            problems.append(str(error))
            continue
        for name, value in stated.items():
            if fields.setdefault(name, value) != value:
                owner = " and ".join(rule.keys) or "the tensors"
                problems.append(f"{name} is {value} by {owner}, but {fields[name]} by other keys")
    understood = {key for rule in rules for key in rule.keys}
    has_rotation = "rope.freq_base" in understood
    unknown = [
        key
        for key in header.values
        if key not in understood and not is_neutral(key, header.values, has_rotation=has_rotation)
    ]
    if unknown:
        names = ", ".join(key if key.isprintable() and len(key) < 60 else brief(key) for key in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        problems.append(
            f"unknown keys, which may change the result: {names}{more} "
            '(ignore_metadata=["..."] or --ignore-metadata loads the file without them)'
        )
    if problems:
        raise GGUFError("; ".join(problems))
    return fields
