"""Biases by which experts are chosen, but not weighed (Wang et al. 2024, arXiv 2408.15664)."""

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn.experts import Gate
from torchgguf.nn.slots import Slot, SlottedLayer

_BIAS = "e_score_correction_bias"


class CorrectionBias(SlottedLayer):
    """A layer with the parameter `e_score_correction_bias`, `(E,)`, which has no gradient.

    It is listed before the other base. In GGUF files the bias is a tensor of its own: its slot has the name
    of the parameter, and `.bias`.

    Attributes:
        bias_shape: sizes of the parameter before that of the experts.
    """

    bias_shape: ClassVar[tuple[int, ...]] = ()
    e_score_correction_bias: nn.Parameter
    _is_flat = False  # as files may have the bias, whatever the shape of the parameter

    def add_bias(self, experts: int) -> None:
        """Create the parameter, zero as in a new model."""
        self.e_score_correction_bias = nn.Parameter(
            torch.zeros(*self.bias_shape, experts), requires_grad=False
        )

    def slots(self) -> Iterable[Slot]:
        """List the parameters of the other base, and the bias."""
        for slot in super().slots():
            if slot.name != _BIAS:
                yield slot
        also = (self.e_score_correction_bias.shape[-1],) if self.bias_shape else None
        yield Slot(f"{_BIAS}.bias", tuple(self._stored().shape), self._stored, also=also)

    def _stored(self) -> Tensor:
        bias = self.e_score_correction_bias.detach()
        return bias.flatten() if self._is_flat else bias

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the bias, or a parameter of the other base."""
        if name != f"{_BIAS}.bias":
            super().fill(name, tensor)
            return
        self._is_flat = tensor.dim() == 1
        rows = tensor.view(*self.bias_shape, -1)
        self.e_score_correction_bias = nn.Parameter(rows, requires_grad=False)


class WideGate(Gate):
    """A `Gate` that calculates in float32, whatever the dtype of the model."""

    wide: ClassVar[tuple[str, ...]] = ("weight",)

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        return F.linear(input.float(), self.weight.float())


class CorrectedGate(CorrectionBias, WideGate):
    """A `WideGate` with the bias."""

    wide = ("weight", _BIAS)

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.add_bias(out_features)
