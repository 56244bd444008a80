"""`History`: the losses of a training, kept in its checkpoints."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass
class History:
    """The losses of a training so far.

    Attributes:
        losses: of each step, before it.
        held_out: of held-out data, by the number of steps before.
        unit: what losses are means over.
    """

    losses: list[float] = field(default_factory=list)
    held_out: dict[int, float] = field(default_factory=dict)
    unit: str = "token"

    def as_json(self) -> dict[str, Any]:
        """Return the history in the form of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return what `as_json` stated."""
        held_out = {int(step): loss for step, loss in value["held_out"].items()}
        return cls(list(value["losses"]), held_out, value["unit"])
