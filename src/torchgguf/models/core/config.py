"""`Config`: the sizes and choices of a model, named as in Hugging Face's config.json."""

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import MISSING, InitVar, dataclass, field, fields
from functools import wraps
from operator import attrgetter
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import torch

from torchgguf.container.errors import brief
from torchgguf.models.core.special_floats import decoded, encoded

AnyConfig = TypeVar("AnyConfig", bound="Config")

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

FLOATING_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Far above any model. Configs and models make something for each of these, before a tensor is read that
# could prove the number. llama.cpp, too, loads at most 512 layers. More labels need names, in `id2label`.
_LARGEST = {"num_labels": 1 << 16} | dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 512)
# Tables of these sizes are computed, not loaded.
LARGEST_HEAD = 1 << 16
_LARGEST |= dict.fromkeys(("head_dim", "n_head", "num_attention_heads", "num_key_value_heads"), LARGEST_HEAD)

_LABELS = ("id2label", "label2id")

# Keys without a field that no model here supports, with the value that changes nothing (None is another). All
# other keys without a field change nothing, and are kept.
_UNSUPPORTED: dict[str, Any] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "output_attentions": False,  # these three are arguments of `forward`
    "output_hidden_states": False,
    "return_dict": True,
    "per_layer_config": None,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
    "torchscript": False,
}


def floating_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """Return a dtype of activations, given itself or its name; `"auto"` and None are float32.

    Raises:
        ValueError: activations of this dtype are unsupported.
    """
    if dtype in (None, "auto"):
        return torch.float32
    for known in FLOATING_DTYPES:
        if dtype in (known, str(known).removeprefix("torch.")):
            return known
    names = ", ".join(str(known).removeprefix("torch.") for known in FLOATING_DTYPES)
    raise ValueError(f"dtype={brief(dtype)} is not supported; these are: {names}")


def _argument_types(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return the valid types of each argument of a dataclass."""
    types = {}
    for name, hint in get_type_hints(cls).items():
        hint = hint.type if isinstance(hint, InitVar) else hint
        types[name] = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return {name: types[name] for name in inspect.signature(cls).parameters}


def _checked(name: str, value: Any, types: tuple[Any, ...]) -> Any:
    """Return a value after a check of its type: a wrong one would fail far from here."""
    if torch.dtype in types and value is not None:
        return floating_dtype(value)
    if not any(_matches(value, kind) for kind in types):
        names = (
            str(kind) if get_origin(kind) is list else (get_origin(kind) or kind).__name__ for kind in types
        )
        wanted = " or ".join(names)
        raise ValueError(f"{name} must be {wanted}, got {brief(value)}")
    if isinstance(value, int | float) and not abs(value) < 2**63:  # which NaN is not, either
        raise ValueError(f"{name}={brief(value)} is invalid")
    return value


def _matches(value: Any, kind: Any) -> bool:
    """Return whether a value, and what it contains, is of a type."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return True
    allowed = (float, int) if origin is float else (origin,)
    if not isinstance(value, allowed) or (type(value) is bool and origin is not bool):
        return False
    if isinstance(value, dict):  # labels may be numbers, but must be hashable
        return Any in inner or not any(isinstance(each, dict | list) for each in value.values())
    return not isinstance(value, list) or all(_matches(each, *inner) for each in value)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def config_dataclass(cls: type[AnyConfig]) -> type[AnyConfig]:
    """Make a config class a dataclass, whose constructor accepts all keys of a config.json.

    The second names in `attribute_map` are valid for arguments and attributes, too. Keys without a field
    become plain attributes, as in transformers.
    """
    dataclass(kw_only=True, repr=False)(cls)
    init = cls.__init__
    types = _argument_types(cls)

    @wraps(init)
    def init_from_all(self: AnyConfig, **values: Any) -> None:
        values = _supported(cls, values)
        self.attn_implementation = values.pop("attn_implementation", None)
        fields = {name: _checked(name, values.pop(name), types[name]) for name in types if name in values}
        init(self, **fields)
        vars(self).update(values)

    cls.__init__ = init_from_all  # type: ignore[assignment]
    for alias, name in cls.attribute_map.items():
        setattr(cls, alias, _alias(name))
    return cls


def _alias(name: str) -> property:
    return property(attrgetter(name), lambda config, value: setattr(config, name, value))


@config_dataclass
class Config:
    """Base of all configs; subclasses, each a `config_dataclass`, add fields.

    `num_labels`, the number of labels of a classifier (two by default), is the number of names in `id2label`;
    setting it replaces the names. `problem_type` determines whether labels exclude each other.

    Attributes:
        model_type: the value of `model_type` in config.json.
        attribute_map: second names of fields, which are never written.
        attn_implementation: the default attention of models built from the config. None is the default of
            models. It is not written to config.json.

    Raises:
        ValueError: fields are of wrong types, invalid, unsupported or contradict each other, or the config
            is of another model type; the message names them.
    """

    model_type: ClassVar[str] = ""
    attribute_map: ClassVar[Mapping[str, str]] = {}
    # Fields of base classes that this model does not have: they are never written.
    left_out: ClassVar[tuple[str, ...]] = ()
    # Fields that most configs do not support, but this one does.
    also_supported: ClassVar[tuple[str, ...]] = ()
    # What transformers' Trainer leaves out when it evaluates; by default older ones look for another name.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache"]
    _attn_implementation: ClassVar[str | None] = None

    vocab_size: int = 32000
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    architectures: list[str] | None = None
    dtype: torch.dtype | None = None
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: str | None = None
    num_labels: InitVar[int | None] = None

    def __post_init__(self, num_labels: int | None) -> None:
        """Name the labels if they are without names."""
        if self.id2label is None:
            _set_num_labels(self, 2 if num_labels is None else num_labels)
        else:
            try:
                self.id2label = {int(id): label for id, label in self.id2label.items()}  # strings in JSON
            except ValueError:
                raise ValueError(
                    f"the keys of id2label must be numbers, got {brief([*self.id2label])}"
                ) from None
            if num_labels not in (None, len(self.id2label)):
                raise ValueError(f"num_labels={num_labels}, but id2label names {len(self.id2label)} labels")
            if self.label2id is None:
                self.label2id = {label: id for id, label in self.id2label.items()}
        if self.problem_type not in (None, *PROBLEM_TYPES):
            known = ", ".join(PROBLEM_TYPES)
            raise ValueError(f"problem_type {brief(self.problem_type)} is not supported; these are: {known}")
        if self.initializer_range < 0:
            raise ValueError(f"initializer_range must be 0 or above, got {self.initializer_range}")
        if self.problem_type == "single_label_classification" and len(self.id2label or ()) == 1:
            raise ValueError(f"problem_type {self.problem_type!r} needs num_labels of 2 or more, got 1")

    @property
    def layers_with_tensors(self) -> int:
        """The number of layers that have parameters: all, in most models."""
        layers: int = getattr(self, "num_hidden_layers", 0)
        return layers

    @property
    def attn_implementation(self) -> str | None:
        """Name of an attention implementation, or None."""
        return self._attn_implementation

    @attn_implementation.setter
    def attn_implementation(self, name: str | None) -> None:
        vars(self)["_attn_implementation"] = name

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Build from the contents of a config.json.

        Args:
            values: of config.json.
            changes: fields to set in their place.

        Raises:
            TypeError: `changes` name no field.
            ValueError: as the constructor.
        """
        values, changes = _by_own_names(cls, decoded(values)), _by_own_names(cls, changes)
        known = {*inspect.signature(cls).parameters, "attn_implementation", *_UNSUPPORTED, *values}
        if unknown := [key for key in changes if key not in known]:
            raise TypeError(f"there is no option {unknown[0]!r}, and {cls.__name__} has no such field")
        if "num_labels" in changes or "id2label" in changes:  # old names would not match
            values = {key: value for key, value in values.items() if key not in _LABELS}
        return cls(**{**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of the config.json that `from_dict` reads."""
        values = {
            key: value
            for key, value in vars(self).items()
            if not key.startswith("_") and key not in self.left_out
        }
        if isinstance(dtype := values["dtype"], torch.dtype):
            values["dtype"] = str(dtype).removeprefix("torch.")
        return {**values, "model_type": self.model_type}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults."""
        return self._stated(use_diff=True)

    def _stated(self, use_diff: bool) -> dict[str, Any]:
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        if not use_diff:  # other programs may not know the defaults
            defaults = {name: value for name, value in defaults.items() if value is None}
        defaults |= _label_names(2)
        return {k: v for k, v in self.to_dict().items() if k not in defaults or v != defaults[k]}

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the text of config.json: the fields that differ from the defaults, or all fields."""
        return json.dumps(encoded(self._stated(use_diff)), indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def _by_own_names(cls: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename fields to their first names, and `torch_dtype` to `dtype`, as transformers does since 5."""
    named = dict(values)
    for alias, name in {**cls.attribute_map, "torch_dtype": "dtype"}.items():
        value = named.pop(alias, None)
        if named.get(name) is None and alias in values:
            named[name] = value
        elif value not in (None, named.get(name)):
            raise ValueError(f"{alias} and {name} are one field, got {brief(value)} and {brief(named[name])}")
    return named


def _supported(cls: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor by first names, after a check for unsupported ones."""
    values = _by_own_names(cls, values)
    if (kind := values.pop("model_type", cls.model_type)) != cls.model_type:
        raise ValueError(f"the model_type of {cls.__name__} must be {cls.model_type!r}, got {brief(kind)}")
    for key, neutral in _UNSUPPORTED.items():
        if (
            key not in cls.also_supported
            and (value := values.get(key)) not in (None, neutral)
            and key not in inspect.signature(cls).parameters
        ):
            raise ValueError(f"{key}={brief(value)} in a config is not supported")
    if taken := [key for key in values if callable(getattr(cls, key, None))]:
        raise ValueError(f"{taken[0]} is not a field of a config")
    named = {"num_labels"} if values.get("id2label") else set()
    for key, largest in _LARGEST.items():
        if key not in named and isinstance(count := values.get(key), int) and count > largest:
            raise ValueError(f"{key}={brief(count)} is invalid: it must be at most {largest}")
    return values


def _label_names(count: int) -> dict[str, Any]:
    names = [f"LABEL_{i}" for i in range(count)]
    return dict(
        zip(_LABELS, (dict(enumerate(names)), {name: i for i, name in enumerate(names)}), strict=True)
    )


def _set_num_labels(config: Config, count: int) -> None:
    if config.id2label is None or len(config.id2label) != count:
        vars(config).update(_label_names(count))


class _Fixed:
    """A field of transformers' configs that has one value here; setting another is an error."""

    def __init__(self, name: str, value: Any) -> None:
        self._name, self._value = name, value

    def __get__(self, config: Config | None, owner: type[Config]) -> Any:
        return copy.copy(self._value)

    def __set__(self, config: Config, value: Any) -> None:
        if value not in (None, self._value):
            raise ValueError(f"{self._name}={value!r} in a config is not supported")


for _name, _value in _UNSUPPORTED.items():
    setattr(Config, _name, _Fixed(_name, _value))

# A dataclass leaves the default of the argument on the class, where None would pass for an answer.
Config.num_labels = property(lambda config: len(config.id2label), _set_num_labels)  # type: ignore
