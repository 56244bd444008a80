"""The places of tensors in a model, which loading fills and saving reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from torchgguf.models.core.model import Model
from torchgguf.models.io.devices import Layers
from torchgguf.nn.experts import ObservedExperts
from torchgguf.nn.slots import Slot, fill, parameter_slots, set_parameter, slots


class ParameterPlace(NamedTuple):
    """A slot of the layer at `path`."""

    path: str
    slot: Slot

    @property
    def name(self) -> str:
        """Name of the tensor in the model."""
        return f"{self.path}.{self.slot.name}".removeprefix(".")  # of the model itself

    def read(self, layers: Layers) -> Tensor:
        """Return the tensor.

        Args:
            layers: loads the layer's parameters if they are elsewhere.
        """
        with layers(self.path):
            return self.slot.read()


class Layout(NamedTuple):
    """How files of one kind hold the tensors of a layer.

    Attributes:
        slots: lists the tensors of a layer, not those of its children.
        fill: stores a plain tensor in the slot of this name.
    """

    slots: Callable[[nn.Module], Iterable[Slot]]
    fill: Callable[[nn.Module, str, Tensor], None]


def _slots_of_experts(layer: nn.Module) -> Iterable[Slot]:
    return slots(layer) if isinstance(layer, ObservedExperts) else parameter_slots(layer)


def _fill_experts(layer: nn.Module, name: str, tensor: Tensor) -> None:
    (fill if isinstance(layer, ObservedExperts) else set_parameter)(layer, name, tensor)


GGUF_LAYOUT = Layout(slots, fill)
CHECKPOINT_LAYOUT = Layout(parameter_slots, set_parameter)
# Of checkpoints whose experts are packed, matrix by matrix, as GGUF files contain them.
PACKED_EXPERTS_LAYOUT = Layout(_slots_of_experts, _fill_experts)


def tensor_places(
    model: Model, list_slots: Callable[[nn.Module], Iterable[Slot]], left_out: nn.Module | None
) -> Iterator[ParameterPlace]:
    """Iterate over the tensors of a model.

    Args:
        model: its parameters may be on the meta device.
        list_slots: lists the slots of a layer.
        left_out: a layer to skip, such as a head that shares the weights of the embedding.
    """
    for path, layer in model.named_modules():
        if layer is not left_out:
            for slot in list_slots(layer):
                yield ParameterPlace(path, slot)
