"""Experts whose gates and ups are one tensor in files, too: those of Gemma 4.

Shape letters: N tokens, K experts that a token goes through, E experts, H size of the stream, I size of an
expert.
"""

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from torchgguf.nn.experts import Experts, QuantizedExperts, mix
from torchgguf.nn.factors import scaled_linear
from torchgguf.nn.slots import Slot, parameter_of, set_parameter

_GATE_UP, _DOWN = _MATRICES = ("gate_up_proj", "down_proj")


class FusedExperts(Experts):
    """Experts whose `gate_up_proj` `(E, 2I, H)` and `down_proj` `(E, H, I)` are in files as they are here."""

    matrices: ClassVar[tuple[str, ...]] = _MATRICES

    def make_packed(self) -> "QuantizedFusedExperts":
        """Create the packed form, without tensors."""
        return QuantizedFusedExperts(self.act_fn)

    def slots(self) -> Iterable[Slot]:
        """List both tensors."""
        for name in _MATRICES:
            shape = tuple(self.get_parameter(name).shape)
            read = partial(parameter_of, self, name)
            yield Slot(f"{name}.weight", shape, read, packable=True, factors=shape[:1])

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of both tensors."""
        set_parameter(self, name.removesuffix(".weight"), tensor)


class QuantizedFusedExperts(QuantizedExperts):
    """The packed form of `FusedExperts`: two tensors in their blocks, each of its own type."""

    matrices: ClassVar[tuple[str, ...]] = _MATRICES
    gate_up_proj: nn.Parameter

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        parameters = (self.gate_up_proj, self.down_proj, *self.scales().values())
        return mix(self._expert, parameters, input, chosen, weights)

    def _expert(self, expert: int | None, x: Tensor, *parameters: Tensor) -> Tensor:
        gate_up_proj, down_proj, *scales = parameters
        scale = dict(zip(self.scales(), scales, strict=True)) if scales else {}
        kinds = self.quant_types
        gate_up = scaled_linear(x, gate_up_proj, kinds[_GATE_UP], scale=scale.get(_GATE_UP))
        gate, up = self._halves(self._changed(_GATE_UP, expert, x, gate_up))
        products = self.act_fn(gate) * up
        self._observe(expert, x, products)
        down = scaled_linear(products, down_proj, kinds[_DOWN], scale=scale.get(_DOWN))
        return self._changed(_DOWN, expert, products, down)

    def intermediate_size(self) -> int:
        """Return the size of an expert, I."""
        return self.gate_up_proj.shape[1] // 2

    def make_plain(self, experts: int, hidden_size: int, intermediate_size: int) -> FusedExperts:
        """Create the plain form."""
        return FusedExperts(experts, hidden_size, intermediate_size, self.act_fn)
