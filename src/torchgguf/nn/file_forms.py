"""Layers whose parameters GGUF files contain in another form, such as `1 + weight`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchgguf.nn.slots import Slot, SlottedLayer, parameter_of


@dataclass(frozen=True, slots=True)
class FileForm:
    """The form of a parameter in files.

    Attributes:
        to_file: returns the tensor of a file, given the parameter.
        to_layer: returns the parameter, given the tensor of a file.
        columns: sizes of the dimensions that the tensor of a file has after those of the parameter.
    """

    to_file: Callable[[Tensor], Tensor]
    to_layer: Callable[[Tensor], Tensor]
    columns: tuple[int, ...] = ()


UNIT_OFFSET = FileForm(lambda weight: weight + 1, lambda stored: stored - 1)
# A rate of decay, which models contain as a logarithm.
NEGATIVE_EXP = FileForm(lambda log: -log.exp(), lambda stored: (-stored).log())


class FormedLayer(SlottedLayer):
    """Base of layers whose parameters files contain in another form.

    The parameter is rounded, and does not determine what the file contains. So the layer keeps what it read,
    and returns it as long as the parameter is the one that follows from it.

    Attributes:
        file_forms: the forms, by the names of their parameters.
    """

    file_forms: ClassVar[Mapping[str, FileForm]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._read_from_file: dict[str, Tensor] = {}

    def slots(self) -> Iterable[Slot]:
        """List the parameters in the form of files, and what there is beside them."""
        for slot in super().slots():
            if (form := self.file_forms.get(slot.name)) is None:
                yield slot
            else:
                yield replace(slot, shape=slot.shape + form.columns, read=partial(self._in_file, slot.name))

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store a parameter, given the tensor of a file."""
        if (form := self.file_forms.get(name)) is not None:
            self._read_from_file[name] = stored = tensor.detach().cpu()
            # On the CPU, as it is calculated again: a GPU may round in another way.
            parameter = form.to_layer(stored)
            beyond = bool(parameter.isnan().any())
            self.register_buffer(_beyond(name), tensor.detach().float() if beyond else None, persistent=False)
            tensor = parameter.to(tensor.device)
        super().fill(name, tensor)

    def in_file_form(self, name: str) -> Tensor:
        """Return a parameter in the form of files, in float32, for layers that calculate with that form.

        Numbers of a file that have no counterpart in the parameter, such as a rate of decay above 0, are NaN
        there. They are returned as they were read, and are not trained.
        """
        return self._formed(name, getattr(self, name).float())

    def _formed(self, name: str, parameter: Tensor) -> Tensor:
        to_file = self.file_forms[name].to_file
        beyond: Tensor | None = getattr(self, _beyond(name), None)
        if beyond is None:
            return to_file(parameter)
        # NaN must not enter `to_file`: its gradient would be NaN, too.
        is_beyond = to_file(parameter.detach()).isnan()
        return torch.where(
            is_beyond, beyond.to(parameter.dtype), to_file(parameter.masked_fill(parameter.isnan(), 0.0))
        )

    def _in_file(self, name: str) -> Tensor:
        form, parameter = self.file_forms[name], parameter_of(self, name)
        stored = self._read_from_file.get(name)
        if stored is not None and _are_same(form.to_layer(stored).to(parameter.dtype), parameter.cpu()):
            return stored
        # llama.cpp's converter calculates in float16, but not in bfloat16.
        return self._formed(name, parameter.float() if parameter.dtype is torch.bfloat16 else parameter)


def _are_same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _beyond(name: str) -> str:
    """Return the name of the buffer with numbers that a parameter does not represent."""
    return f"_{name}_in_file"
