"""How a layer's parameters lie in GGUF files: one slot a tensor, to be read, filled or left packed.

Most layers hold their tensors as files do. Those that do not (weights transposed, several tensors in one
parameter, packed bytes) are `SlottedLayer`s and list their slots: nobody else needs to know.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from torchgguf.nn.factors import FACTOR_KINDS, factor_name, is_factor
from torchgguf.quants import QuantType


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of a GGUF file as a layer holds it.

    Attributes:
        name: of the tensor, after the name of the layer.
        shape: in the file, counted in weights.
        read: returns the tensor as it lies in the file: uint8 rows of blocks if there is a `quant_type`.
        quant_type: of a packed tensor.
        packable: whether the layer has a packed form, in which this tensor stays in its blocks.
        also: another shape that files may have it in.
        factors: shape of the factors on its products that files may contain beside it (`nn/factors.py`).
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    quant_type: QuantType | None = None
    packable: bool = False
    also: tuple[int, ...] | None = None
    factors: tuple[int, ...] | None = None


class SlottedLayer(nn.Module):
    """A layer that lists how its parameters lie in GGUF files.

    Attributes:
        wide: names of parameters that models of half precision load as float32.
        advice: follows the layer's description in an f-string: so errors of libraries that do not know the
            layer, such as PEFT, state what to do.
    """

    advice: ClassVar[str] = ""
    wide: ClassVar[tuple[str, ...]] = ()

    def __format__(self, format_spec: str) -> str:
        return format(f"{self!r}{self.advice}", format_spec)

    def slots(self) -> Iterable[Slot]:
        """List the tensors that the layer loads from a file."""
        return parameter_slots(self)

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store a slot's tensor, unpacked, in its dtype."""
        set_parameter(self, name, tensor)

    def pack(self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype) -> nn.Module:
        """Return the packed form of the layer, holding a slot's tensor in its blocks, which are not copied.

        `blocks`: uint8 `(..., rows, bytes_per_row)`. `dtype`: of the activations. The other parameters move
        along. A layer that is packed already stores the blocks and returns itself.
        """
        raise NotImplementedError


class PackedLayer(SlottedLayer):
    """A layer whose matrices stay in their GGUF blocks."""

    advice = ", whose weights are packed (call model.dequantize() first),"

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store a slot's tensor, unpacked, or factors on the products of a matrix."""
        if is_factor(name):
            factor = nn.Parameter(tensor, requires_grad=False)
            self.register_parameter(name.replace(".", "_"), factor)
        else:
            super().fill(name, tensor)

    def twin(self) -> Self:
        """Return a layer that shares all parameters, and can be given others."""
        twin = copy.copy(self)
        vars(twin)["_parameters"] = self._parameters.copy()
        return twin

    def factor(self, matrix: str) -> Tensor | None:
        """Return the factors on the products of a matrix, given the name of its slot, or None."""
        return self._parameters.get(factor_name(matrix).replace(".", "_"))

    def factor_slots(self, matrix: str) -> Iterable[Slot]:
        """List the factors of a matrix, given the name of its slot."""
        for name in (factor_name(matrix, kind) for kind in FACTOR_KINDS):
            parameter = name.replace(".", "_")
            if (factor := getattr(self, parameter, None)) is not None:
                yield Slot(name, tuple(factor.shape), partial(parameter_of, self, parameter))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        raise NotImplementedError


def slots(layer: nn.Module) -> list[Slot]:
    """List the tensors that any layer, children not counted, loads from a GGUF file."""
    if isinstance(layer, SlottedLayer):
        return list(layer.slots())
    return parameter_slots(layer)


def fill(layer: nn.Module, name: str, tensor: Tensor) -> None:
    """Store a slot's tensor, unpacked, in any layer."""
    if isinstance(layer, SlottedLayer):
        layer.fill(name, tensor)
    else:
        set_parameter(layer, name, tensor)


def set_parameter(layer: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace a parameter by one that has a gradient if the old one has."""
    old = getattr(layer, name, None)
    setattr(layer, name, nn.Parameter(tensor, requires_grad=old is None or old.requires_grad))


def parameter_slots(layer: nn.Module) -> list[Slot]:
    """List the parameters of any layer, children not counted, as the layer holds them."""
    return [
        Slot(name, tuple(value.shape), partial(parameter_of, layer, name))
        for name, value in layer.named_parameters(recurse=False)
    ]


def parameter_of(layer: nn.Module, name: str) -> Tensor:
    """Return what the layer holds now: its parameters may have come since its slots were listed."""
    parameter: nn.Parameter = getattr(layer, name)
    return parameter.detach()
