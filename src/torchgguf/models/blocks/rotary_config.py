"""`RotaryConfig`: the fields of configs for rotary position embedding."""

import math
from collections.abc import Callable, Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

from torchgguf.models.core.config import config_dataclass
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.nn.rotary import PROPORTIONAL

# The values that a parameter may have, in words and as a function; others are 0 or above.
_BOUNDS: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    **dict.fromkeys(
        ("rope_theta", "factor", "original_max_position_embeddings"), ("above 0", lambda number: number > 0)
    ),
    # Divisors of frequencies: a negative one turns the other way.
    **dict.fromkeys(("short_factor", "long_factor"), ("other than 0", lambda number: number != 0)),
}
_LISTS = ("short_factor", "long_factor", "mrope_section")


@config_dataclass
class RotaryConfig(PreTrainedConfig):
    """Config of a model with rotary position embedding.

    `rope_theta`, `rope_scaling` and `partial_rotary_factor`, the fields of configs before transformers 5, are
    accepted instead of `rope_parameters`.

    Attributes:
        rotates_parts: whether a `partial_rotary_factor` below 1 is supported.
        default_part: the `partial_rotary_factor` of configs that state none; None: whole heads are rotated.
        old_rope_types: names of a `rope_type` in older configs, with their present names.
        default_theta: the base, if `rope_parameters` contain none.
        default_thetas: bases by kind of layer, if `rope_parameters` contain those of several kinds; the older
            fields apply to the first kind. None: all layers rotate alike.
    """

    rotates_parts: ClassVar[bool] = False
    default_part: ClassVar[float | None] = None
    old_rope_types: ClassVar[Mapping[str, str]] = {"su": "longrope"}
    default_theta: ClassVar[float] = 10000.0
    default_thetas: ClassVar[Mapping[str, float] | None] = None

    max_position_embeddings: int = 2048
    rope_parameters: dict[str, Any] | None = None
    rope_theta: InitVar[float | None] = None
    rope_scaling: InitVar[dict[str, Any] | None] = None
    partial_rotary_factor: InitVar[float | None] = None

    def __post_init__(
        self,
        num_labels: int | None,
        rope_theta: float | None,
        rope_scaling: dict[str, Any] | None,
        partial_rotary_factor: float | None,
    ) -> None:
        """Complete `rope_parameters`, so that `rope_type` and `rope_theta` are always there."""
        super().__post_init__(num_labels)
        if self.default_thetas is None:
            stated = self.rope_parameters or {}
            older = (rope_theta, rope_scaling)
            theta = self.default_theta
            self.rope_parameters = self._complete(stated, *older, partial_rotary_factor, theta)
            return
        first = next(iter(self.default_thetas))
        stated, self.rope_parameters = self.rope_parameters or {}, {}
        for kind, theta in self.default_thetas.items():
            older = (rope_theta, rope_scaling) if kind == first else (None, None)
            parameters = self._complete(stated.get(kind) or {}, *older, partial_rotary_factor, theta)
            self.rope_parameters[kind] = parameters

    def _complete(
        self,
        stated: Mapping[str, Any],
        rope_theta: float | None,
        rope_scaling: dict[str, Any] | None,
        partial_rotary_factor: float | None,
        default_theta: float,
    ) -> dict[str, Any]:
        """Return the parameters of one rotary embedding, with those of older fields."""
        stated = {key: value for key, value in stated.items() if value is not None}
        given = {**(rope_scaling or stated)}
        for name, value in (("rope_theta", rope_theta), ("partial_rotary_factor", partial_rotary_factor)):
            if value is not None and given.setdefault(name, value) != value:
                raise ValueError(
                    f"{name}={value} differs from {given[name]} in rope_parameters: pass one of them"
                )
        if self.default_part is not None:
            given.setdefault("partial_rotary_factor", self.default_part)
        legacy_type = given.pop("type", "default")
        if not isinstance(kind := given.setdefault("rope_type", legacy_type), str):
            raise ValueError(f"rope_type must be a string, got {kind!r}")
        kind = given["rope_type"] = self.old_rope_types.get(kind, kind)
        given.setdefault("rope_theta", stated.get("rope_theta", default_theta))
        if kind not in ("default", "linear", PROPORTIONAL):
            given.setdefault("original_max_position_embeddings", self.max_position_embeddings)
            if (original := getattr(self, "original_max_position_embeddings", None)) is not None:
                given["original_max_position_embeddings"] = original  # Phi-3's own field
        _check_numbers(given)
        if kind == "longrope" and given.get("attention_factor") is None:
            ratio = self.max_position_embeddings / given["original_max_position_embeddings"]
            given.setdefault("factor", ratio)
        rotated = given.pop("partial_rotary_factor", None)
        if rotated not in (None, 1.0) and not self.rotates_parts:
            raise ValueError(
                f"partial_rotary_factor={rotated} is unsupported: this model rotates whole heads"
            )
        if rotated not in (None, 1.0 if self.default_part is None else None):
            given["partial_rotary_factor"] = rotated
        return given


def _check_numbers(parameters: Mapping[str, Any]) -> None:
    """Refuse numbers from which no frequencies can be computed."""
    for key, value in parameters.items():
        if key == "rope_type":
            continue
        bound, is_valid = _BOUNDS.get(key, ("0 or above", lambda number: number >= 0))
        for number in value if isinstance(value, list) and key in _LISTS else [value]:
            if not isinstance(number, int | float) or not math.isfinite(number) or not is_valid(number):
                raise ValueError(f"rope_parameters[{key!r}] must be {bound} and finite, got {number!r}")


# A dataclass keeps defaults of these arguments as attributes of the class: None would hide the values.
RotaryConfig.rope_theta = property(lambda self: self.rope_parameters["rope_theta"])  # type: ignore[attr-defined]
RotaryConfig.rope_scaling = property(lambda self: self.rope_parameters)  # type: ignore[attr-defined]
