"""`PreTrainedConfig`: the sizes and choices of a model, named as in Hugging Face's config.json."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, InitVar, dataclass, fields
from functools import wraps
from operator import attrgetter
from typing import Any, ClassVar, Self, TypeVar

import torch

Config = TypeVar("Config", bound="PreTrainedConfig")

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def floating_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """Take a dtype of activations by itself or by its name; `"auto"` and None are float32.

    Raises:
        ValueError: nothing can be computed in it.
    """
    names: dict[Any, torch.dtype] = {str(known).removeprefix("torch."): known for known in _DTYPES}
    found = torch.float32 if dtype in (None, "auto") else names.get(dtype, dtype)
    if found not in _DTYPES:
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

    Raises:
        ValueError: fields contradict each other; the message names them.
    """

    model_type: ClassVar[str] = ""
    attribute_map: ClassVar[Mapping[str, str]] = {}

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
        if self.id2label is None:
            _set_num_labels(self, 2 if num_labels is None else num_labels)
        else:
            self.id2label = {int(id): label for id, label in self.id2label.items()}  # strings in JSON
            if num_labels not in (None, len(self.id2label)):
                raise ValueError(f"num_labels={num_labels}, but id2label names {len(self.id2label)} labels")
        if self.problem_type not in (None, *PROBLEM_TYPES):
            known = ", ".join(PROBLEM_TYPES)
            raise ValueError(f"problem_type {self.problem_type!r} is not supported; these are: {known}")
        if self.problem_type == "single_label_classification" and len(self.id2label or ()) == 1:
            raise ValueError(f"problem_type {self.problem_type!r} needs num_labels of 2 or more, not 1")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from the contents of a config.json. Keys that are no fields are kept as plain attributes.

        Raises:
            ValueError: it is that of another kind of model, or says what no model here can do.
        """
        values = dict(values)
        if (kind := values.pop("model_type", cls.model_type)) != cls.model_type:
            raise ValueError(f"{cls.__name__} is for model_type {cls.model_type!r}, but this is {kind!r}")
        legacy_dtype = values.pop("torch_dtype", None)  # its name before transformers 5
        if (dtype := values.get("dtype") or legacy_dtype) is not None:
            values["dtype"] = floating_dtype(dtype)
        known = {*inspect.signature(cls).parameters, *cls.attribute_map}
        config = cls(**{key: value for key, value in values.items() if key in known})
        for key, value in values.items():
            if key not in known:
                setattr(config, key, value)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of the config.json that `from_dict` reads."""
        values = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        if isinstance(dtype := values["dtype"], torch.dtype):
            values["dtype"] = str(dtype).removeprefix("torch.")
        return {**values, "model_type": self.model_type}

    def to_json_string(self) -> str:
        """Return the text of config.json: fields that differ from the defaults, and `model_type`."""
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        defaults |= _label_names(2)
        changed = {k: v for k, v in self.to_dict().items() if k not in defaults or v != defaults[k]}
        return json.dumps(changed, indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def _label_names(count: int) -> dict[str, Any]:
    names = [f"LABEL_{i}" for i in range(count)]
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _set_num_labels(config: PreTrainedConfig, count: int) -> None:
    if config.id2label is None or len(config.id2label) != count:
        vars(config).update(_label_names(count))


# A dataclass leaves the default of the argument on the class, where None would pass for an answer.
PreTrainedConfig.num_labels = property(lambda config: len(config.id2label), _set_num_labels)  # type: ignore
