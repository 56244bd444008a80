"""Biases by which experts are chosen, but not weighed (Wang et al. 2024, arXiv 2408.15664)."""

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn.experts import Gate
from torchgguf.nn.slots import Slot, SlottedLayer, parameter_of


class CorrectionBias(SlottedLayer):
    """A layer with the parameter `e_score_correction_bias`, `(E,)`, which has no gradient.

    It is listed before the other base. In GGUF files the bias is a tensor of its own: its slot has the name
    of the parameter, and `.bias`.

    Attributes:
        bias_name: the name of the parameter.
        bias_shape: sizes of the parameter before that of the experts.
    """

    bias_name: ClassVar[str] = "e_score_correction_bias"
    bias_shape: ClassVar[tuple[int, ...]] = ()
    e_score_correction_bias: nn.Parameter
    _is_flat = False  # as files may have the bias, whatever the shape of the parameter

    def add_bias(self, experts: int) -> None:
        """Create the parameter, zero as in a new model."""
        self._set_bias(torch.zeros(*self.bias_shape, experts))

    def _set_bias(self, bias: Tensor) -> None:
        self.register_parameter(self.bias_name, nn.Parameter(bias, requires_grad=False))

    def slots(self) -> Iterable[Slot]:
        """List the parameters of the other base, and the bias."""
        for slot in super().slots():
            if slot.name != self.bias_name:
                yield slot
        also = (parameter_of(self, self.bias_name).shape[-1],) if self.bias_shape else None
        yield Slot(f"{self.bias_name}.bias", tuple(self._stored().shape), self._stored, also=also)

    def _stored(self) -> Tensor:
        bias = parameter_of(self, self.bias_name)
        return bias.flatten() if self._is_flat else bias

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the bias, or a parameter of the other base."""
        if name != f"{self.bias_name}.bias":
            super().fill(name, tensor)
            return
        self._is_flat = tensor.dim() == 1
        self._set_bias(tensor.view(*self.bias_shape, -1))


class WideGate(Gate):
    """A `Gate` that calculates in float32, whatever the dtype of the model."""

    wide: ClassVar[tuple[str, ...]] = ("weight",)

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        return F.linear(input.float(), self.weight.float())


class CorrectedGate(CorrectionBias, WideGate):
    """A `WideGate` with the bias."""

    wide = ("weight", CorrectionBias.bias_name)

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.add_bias(out_features)
