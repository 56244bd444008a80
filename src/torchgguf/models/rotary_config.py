"""`RotaryConfig`: what configs of models with rotary position embedding say of it."""

from dataclasses import InitVar, dataclass
from typing import Any

from torchgguf.models.config import PreTrainedConfig


@dataclass(kw_only=True, repr=False)
class RotaryConfig(PreTrainedConfig):
    """Config of a model with rotary position embedding.

    `rope_theta`, `rope_scaling` and `partial_rotary_factor`, as configs had them before transformers 5, may
    be given instead of `rope_parameters`.
    """

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
        """Bring `rope_parameters` to the form with `rope_type` and `rope_theta` always there."""
        super().__post_init__(num_labels)
        given = {**(self.rope_parameters or rope_scaling or {})}
        legacy_type = given.pop("type", "default")
        given.setdefault("rope_type", legacy_type)
        given.setdefault("rope_theta", 10000.0 if rope_theta is None else rope_theta)
        if given["rope_type"] not in ("default", "linear"):
            given.setdefault("original_max_position_embeddings", self.max_position_embeddings)
        if (rotated := given.pop("partial_rotary_factor", partial_rotary_factor)) not in (None, 1.0):
            raise ValueError(f"partial_rotary_factor={rotated}: rotating a part of a head is not supported")
        self.rope_parameters = given


# A dataclass leaves the defaults of the arguments above on the class, where None would pass for an answer.
RotaryConfig.rope_theta = property(lambda self: self.rope_parameters["rope_theta"])  # type: ignore[attr-defined]
RotaryConfig.rope_scaling = property(lambda self: self.rope_parameters)  # type: ignore[attr-defined]
