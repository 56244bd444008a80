"""`PreTrainedConfig`: the sizes and choices of a model, named as in Hugging Face's config.json."""

import inspect
import json
from dataclasses import MISSING, InitVar, dataclass, fields
from typing import Any, ClassVar, Self

import torch

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


@dataclass(kw_only=True, repr=False)
class PreTrainedConfig:
    """Base of all configs; subclasses are dataclasses that add fields.

    `rope_theta`, `rope_scaling` and `partial_rotary_factor`, as configs had them before transformers 5, may
    be given instead of `rope_parameters`.

    Raises:
        ValueError: fields contradict each other; the message names them.
    """

    model_type: ClassVar[str] = ""

    vocab_size: int = 32000
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    rope_parameters: dict[str, Any] | None = None
    architectures: list[str] | None = None
    dtype: torch.dtype | None = None
    rope_theta: InitVar[float | None] = None
    rope_scaling: InitVar[dict[str, Any] | None] = None
    partial_rotary_factor: InitVar[float | None] = None

    def __post_init__(
        self,
        rope_theta: float | None,
        rope_scaling: dict[str, Any] | None,
        partial_rotary_factor: float | None,
    ) -> None:
        """Bring `rope_parameters` to the form with `rope_type` and `rope_theta` always there."""
        given = {**(self.rope_parameters or rope_scaling or {})}
        legacy_type = given.pop("type", "default")
        given.setdefault("rope_type", legacy_type)
        given.setdefault("rope_theta", 10000.0 if rope_theta is None else rope_theta)
        if given["rope_type"] not in ("default", "linear"):
            given.setdefault("original_max_position_embeddings", self.max_position_embeddings)
        if (rotated := given.pop("partial_rotary_factor", partial_rotary_factor)) not in (None, 1.0):
            raise ValueError(f"partial_rotary_factor={rotated}: rotating a part of a head is not supported")
        self.rope_parameters = given

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
        known = inspect.signature(cls).parameters
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
        changed = {k: v for k, v in self.to_dict().items() if k not in defaults or v != defaults[k]}
        return json.dumps(changed, indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


# A dataclass leaves the defaults of the arguments above on the class, where None would pass for an answer.
PreTrainedConfig.rope_theta = property(lambda self: self.rope_parameters["rope_theta"])  # type: ignore[attr-defined]
PreTrainedConfig.rope_scaling = property(lambda self: self.rope_parameters)  # type: ignore[attr-defined]
