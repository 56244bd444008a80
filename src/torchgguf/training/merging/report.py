"""Reports of merging: what packing left of the changes that adapters make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torchgguf.container import TensorType

# Below these a change is lost in the steps of the type, or drowned in the noise of packing.
_LEAST_KEPT, _LEAST_COSINE = 0.8, 0.7


class MergedTensor(NamedTuple):
    """One changed tensor.

    Attributes:
        name: the name in the file.
        shape: sizes in weights, in torch's order.
        source_type: the type before.
        type: the type after.
        error: the relative error of packing the changed weights, sqrt(sum((new - old)^2) / sum(old^2)).
        kept: how much of the change is left: its projection on the wanted change, relative to that; 1 if
            nothing was lost.
        cosine: between the change in the file and the wanted change.
    """

    name: str
    shape: tuple[int, ...]
    source_type: TensorType
    type: TensorType
    error: float
    kept: float
    cosine: float

    @property
    def is_lost(self) -> bool:
        """Whether packing swallowed the change, or hid it in noise."""
        return self.kept < _LEAST_KEPT or self.cosine < _LEAST_COSINE


@dataclass
class MergeReport:
    """The tensors that a merge changed, in the order of writing. Merging fills it.

    Attributes:
        tensors: the changed tensors by name; all others were copied byte for byte.
        unchanged: names of tensors that an adapter names, but adds zero to: they were copied.
    """

    tensors: dict[str, MergedTensor] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)

    def add(self, tensor: MergedTensor) -> None:
        """Add a written tensor."""
        self.tensors[tensor.name] = tensor

    @property
    def lost(self) -> list[MergedTensor]:
        """The tensors whose change packing swallowed, or hid in noise."""
        return [tensor for tensor in self.tensors.values() if tensor.is_lost]

    @property
    def advice(self) -> str | None:
        """What to do about lost changes in one line, or None if there are none."""
        if not (lost := self.lost):
            return None
        worst = min(lost, key=lambda tensor: (min(tensor.kept, tensor.cosine), tensor.name))
        return (
            f"packing lost changes in {len(lost)} of {len(self.tensors)} tensors, most in {worst.name}: "
            f"{worst.type.name} kept {worst.kept:.0%} of it, with cosine {worst.cosine:.2f}. Give them a "
            "type of more bits (--quantization Q8_0, or --tensor-type PATTERN=TYPE), or use the adapter "
            "beside the file (--lora)"
        )
