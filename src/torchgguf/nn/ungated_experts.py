"""Experts of two matrices, without a gate.

Shape letters: N tokens, K experts that a token goes through, E experts, H size of the experts' input, I size
of an expert.
"""

from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn.experts import MATRICES, Experts, QuantizedExperts, mix
from torchgguf.nn.factors import scaled_linear
from torchgguf.nn.slots import Slot, parameter_of

_UP, _DOWN = MATRICES[1:]


class UngatedExperts(Experts):
    """Experts `down(act(up(x)))`: `up_proj` is `(E, I, H)`, `down_proj` is `(E, H, I)`, in files too."""

    parameters_of_plain = (_UP, _DOWN)

    def add_parameters(self, experts: int, hidden_size: int, intermediate_size: int) -> None:
        """Allocate the parameters."""
        self.up_proj = nn.Parameter(torch.empty(experts, intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden_size, intermediate_size))

    def make_packed(self) -> "QuantizedUngatedExperts":
        """Create the packed form, without tensors."""
        return QuantizedUngatedExperts(self.act_fn)

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        return mix(self._expert, (self.up_proj, self.down_proj), input, chosen, weights)

    def _expert(self, expert: int | None, x: Tensor, *matrices: Tensor) -> Tensor:
        up_proj, down_proj = matrices
        products = self.act_fn(self._changed(_UP, expert, x, F.linear(x, up_proj)))
        self._observe(expert, x, products)
        return self._changed(_DOWN, expert, products, F.linear(products, down_proj))

    def slots(self) -> Iterable[Slot]:
        """List the matrices of all experts, as they are in files."""
        for name in (_UP, _DOWN):
            shape, read = tuple(self.get_parameter(name).shape), partial(parameter_of, self, name)
            yield Slot(f"{name}.weight", shape, read, packable=True, factors=shape[:1])

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the matrices of all experts."""
        setattr(self, name.removesuffix(".weight"), nn.Parameter(tensor))


class QuantizedUngatedExperts(QuantizedExperts):
    """The packed form of `UngatedExperts`."""

    parameters_of_plain = (_UP, _DOWN)

    def intermediate_size(self) -> int:
        """Return the size of an expert, I."""
        return self.up_proj.shape[1]

    def make_plain(self, experts: int, hidden_size: int, intermediate_size: int) -> UngatedExperts:
        """Create the plain form."""
        return UngatedExperts(experts, hidden_size, intermediate_size, self.act_fn)

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        matrices = (self.up_proj, self.down_proj, *self.scales().values())
        return mix(self._expert, matrices, input, chosen, weights)

    def _expert(self, expert: int | None, x: Tensor, *parameters: Tensor) -> Tensor:
        up_proj, down_proj, *scales = parameters
        scale = dict(zip(self.scales(), scales, strict=True)) if scales else {}
        kinds = self.quant_types
        up = scaled_linear(x, up_proj, kinds[_UP], scale=scale.get(_UP))
        products = self.act_fn(self._changed(_UP, expert, x, up))
        self._observe(expert, x, products)
        down = scaled_linear(products, down_proj, kinds[_DOWN], scale=scale.get(_DOWN))
        return self._changed(_DOWN, expert, products, down)
