"""`PreTrainedConfig`: the sizes and choices of a model, named as in Hugging Face's config.json."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, InitVar, dataclass, fields
from functools import wraps
from operator import attrgetter
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from torchgguf.container.atomic import atomic_write

Config = TypeVar("Config", bound="PreTrainedConfig")

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

FLOATING_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# More layers than any model has: some configs say something of each, which would fill the memory.
_MAX_LAYERS = 100_000

_LABELS = ("id2label", "label2id")

# What a config may ask for beyond its class's fields and no model here does, with the value that asks for
# nothing (None is another). All other keys without a field are of no influence, and kept.
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
    """Take a dtype of activations by itself or by its name; `"auto"` and None are float32.

    Raises:
        ValueError: nothing can be computed in it.
    """
    names: dict[Any, torch.dtype] = {str(known).removeprefix("torch."): known for known in FLOATING_DTYPES}
    found = torch.float32 if dtype in (None, "auto") else names.get(dtype, dtype)
    if found not in FLOATING_DTYPES:
        raise ValueError(f"dtype={dtype!r} is not supported; these are: {', '.join(names)}")
    return found


def aliases(**names: str) -> Callable[[type[Config]], type[Config]]:
    """Give fields of a config class second names, to be set and read by; they are never written."""

    def add(cls: type[Config]) -> type[Config]:
        init = cls.__init__

        @wraps(init)
        def init_by_either_name(self: Any, **fields: Any) -> None:
            if twice := [alias for alias, name in names.items() if {alias, name} <= fields.keys()]:
                raise ValueError(f"{twice[0]} is {names[twice[0]]}: give one of them")
            init(self, **{names.get(name, name): value for name, value in fields.items()})

        cls.__init__ = init_by_either_name  # type: ignore[method-assign]
        cls.attribute_map = names
        for alias, name in names.items():
            setattr(cls, alias, _alias(name))
        return cls

    return add


def _alias(name: str) -> property:
    return property(attrgetter(name), lambda config, value: setattr(config, name, value))


@dataclass(kw_only=True, repr=False)
class PreTrainedConfig:
    """Base of all configs; subclasses are dataclasses that add fields.

    `num_labels`, how many labels a classifier knows (two unless said otherwise), is the number of names in
    `id2label`; to set it gives the labels new names. `problem_type` says how they exclude each other.

    Attributes:
        model_type: the key in config.json that says which model it is for.
        attribute_map: second names of fields (see `aliases`).
        attn_implementation: which attention models get that are built from this, unless they are told; None:
            the default. It is not written to config.json.

    Raises:
        ValueError: fields have wrong types or contradict each other; the message names them.
    """

    model_type: ClassVar[str] = ""
    attribute_map: ClassVar[Mapping[str, str]] = {}
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
        """Give labels without names some."""
        if self.dtype is not None:
            self.dtype = floating_dtype(self.dtype)
        _check_types(self)
        if self.id2label is None:
            _set_num_labels(self, 2 if num_labels is None else num_labels)
        else:
            self.id2label = {int(id): label for id, label in self.id2label.items()}  # strings in JSON
            if num_labels not in (None, len(self.id2label)):
                raise ValueError(f"num_labels={num_labels}, but id2label names {len(self.id2label)} labels")
            if self.label2id is None:
                self.label2id = {label: id for id, label in self.id2label.items()}
        if self.problem_type not in (None, *PROBLEM_TYPES):
            known = ", ".join(PROBLEM_TYPES)
            raise ValueError(f"problem_type {self.problem_type!r} is not supported; these are: {known}")
        if self.problem_type == "single_label_classification" and len(self.id2label or ()) == 1:
            raise ValueError(f"problem_type {self.problem_type!r} needs num_labels of 2 or more, not 1")

    @property
    def attn_implementation(self) -> str | None:
        """Name of an attention implementation, or None."""
        return self._attn_implementation

    @attn_implementation.setter
    def attn_implementation(self, name: str | None) -> None:
        vars(self)["_attn_implementation"] = name

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> Self:
        """Read the config of a model; arguments and errors are those of `AutoConfig.from_pretrained`."""
        from torchgguf.models.auto import AutoConfig  # which knows all classes, this one's heirs

        config = AutoConfig.from_pretrained(pretrained_model_name_or_path, gguf_file, **options)
        if not isinstance(config, cls):
            kinds = f"{cls.model_type!r}, but {pretrained_model_name_or_path} is {config.model_type!r}"
            raise ValueError(f"{cls.__name__} is for model_type {kinds}")
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Build from the contents of a config.json. Keys that are no fields are kept as plain attributes.

        Args:
            values: of config.json.
            changes: fields to set in their place.

        Raises:
            TypeError: `changes` name no field.
            ValueError: it is that of another kind of model, or says what no model here can do.
        """
        for alias, name in cls.attribute_map.items():
            if alias in values and values[alias] != values.get(name, values[alias]):
                raise ValueError(f"{alias} is {name}, but {values[alias]!r} is not {values[name]!r}")
        values = {cls.attribute_map.get(key, key): value for key, value in values.items()}
        if (kind := values.pop("model_type", cls.model_type)) != cls.model_type:
            raise ValueError(f"{cls.__name__} is for model_type {cls.model_type!r}, but this is {kind!r}")
        known = {*inspect.signature(cls).parameters, *cls.attribute_map, "attn_implementation", "torch_dtype"}
        if unknown := [key for key in changes if key not in {*known, *values, *_UNSUPPORTED}]:
            raise TypeError(f"there is no option {unknown[0]!r}, and {cls.__name__} has no such field")
        if "num_labels" in changes or "id2label" in changes:  # the names of other labels go
            values = {key: value for key, value in values.items() if key not in _LABELS}
        values |= {cls.attribute_map.get(key, key): value for key, value in changes.items()}
        for key, neutral in _UNSUPPORTED.items():
            if (value := values.get(key)) not in (None, neutral):
                raise ValueError(f"{key}={value!r} in a config is not supported")
        for key in ("num_hidden_layers", "n_layer"):
            if isinstance(count := values.get(key), int) and count > _MAX_LAYERS:
                raise ValueError(f"{key}={count} cannot be")
        values["dtype"] = values.get("dtype") or values.pop("torch_dtype", None)  # before transformers 5
        attention = values.pop("attn_implementation", None)
        config = cls(**{key: value for key, value in values.items() if key in known})
        vars(config).update({key: value for key, value in values.items() if key not in known})
        config.attn_implementation = attention
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of the config.json that `from_dict` reads."""
        values = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        if isinstance(dtype := values["dtype"], torch.dtype):
            values["dtype"] = str(dtype).removeprefix("torch.")
        return {**values, "model_type": self.model_type}

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the text of a config.json: what differs from the defaults, or all that there is to say."""
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        if not use_diff:  # not all programs that read it know the defaults
            defaults = {name: value for name, value in defaults.items() if value is None}
        defaults |= _label_names(2)
        changed = {k: v for k, v in self.to_dict().items() if k not in defaults or v != defaults[k]}
        return json.dumps(changed, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Write config.json into a folder, which is made if need be."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(save_directory, "config.json")) as file:
            file.write(self.to_json_string(use_diff=False).encode())

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def _field_types(cls: type[PreTrainedConfig]) -> dict[str, tuple[type, ...]]:
    types = {}
    for name, hint in get_type_hints(cls).items():
        alternatives = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        types[name] = tuple(get_origin(kind) or kind for kind in alternatives)
    return {field.name: types[field.name] for field in fields(cls)}


def _check_types(config: PreTrainedConfig) -> None:
    """Refuse values of wrong types, which would fail far from here."""
    for name, types in _field_types(type(config)).items():
        value = getattr(config, name)
        allowed = (*types, int) if float in types else types
        if not isinstance(value, allowed) or (type(value) is bool and bool not in types):
            wanted = " or ".join(kind.__name__ for kind in types)
            raise ValueError(f"{name} must be {wanted}, but it is {value!r}")


def _label_names(count: int) -> dict[str, Any]:
    names = [f"LABEL_{i}" for i in range(count)]
    return dict(
        zip(_LABELS, (dict(enumerate(names)), {name: i for i, name in enumerate(names)}), strict=True)
    )


def _set_num_labels(config: PreTrainedConfig, count: int) -> None:
    if config.id2label is None or len(config.id2label) != count:
        vars(config).update(_label_names(count))


# A dataclass leaves the default of the argument on the class, where None would pass for an answer.
PreTrainedConfig.num_labels = property(lambda config: len(config.id2label), _set_num_labels)  # type: ignore
