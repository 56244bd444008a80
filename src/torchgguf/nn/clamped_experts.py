"""Experts of gpt-oss (OpenAI 2025, arXiv 2508.10925): with biases, and a SwiGLU of bounded inputs.

Shape letters: N tokens, K experts that a token goes through, E experts, H size of the stream, I size of an
expert.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from torchgguf.nn.experts import MATRICES, Experts, QuantizedExperts, mix
from torchgguf.nn.factors import scaled_linear
from torchgguf.nn.slots import Slot, parameter_of

_GATE, _UP, _DOWN = MATRICES


@dataclass(frozen=True)
class ClampedSwiGLU:
    """`gate * sigmoid(alpha * gate) * (up + 1)`: the gate is at most `limit`, up is within both limits."""

    alpha: float = 1.702
    limit: float = 7.0

    def __call__(self, gate: Tensor, up: Tensor) -> Tensor:
        """Combine gate and up, `(..., I)` each."""
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (up + 1) * (gate * torch.sigmoid(gate * self.alpha))


class ClampedExperts(Experts):
    """Experts `down(act(gate(x), up(x)))` with biases, and with the parameters of transformers' gpt-oss.

    `gate_up_proj` is `(E, H, 2I)`, gate and up in turn; `down_proj` is `(E, I, H)`: the transposes of linear
    layers' weights. Their biases are `(E, 2I)` and `(E, H)`. In GGUF files, weights are not transposed, and
    gates and ups are separate.
    """

    def add_parameters(self, experts: int, hidden_size: int, intermediate_size: int) -> None:
        """Allocate the parameters."""
        self.gate_up_proj = nn.Parameter(torch.empty(experts, hidden_size, 2 * intermediate_size))
        self.gate_up_proj_bias = nn.Parameter(torch.empty(experts, 2 * intermediate_size))
        self.down_proj = nn.Parameter(torch.empty(experts, intermediate_size, hidden_size))
        self.down_proj_bias = nn.Parameter(torch.empty(experts, hidden_size))

    def make_packed(self) -> "QuantizedClampedExperts":
        """Create the packed form, without tensors."""
        return QuantizedClampedExperts(self.act_fn)

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        parameters = (self.gate_up_proj, self.gate_up_proj_bias, self.down_proj, self.down_proj_bias)
        return mix(self._expert, parameters, input, chosen, weights)

    def _expert(self, expert: int | None, x: Tensor, *parameters: Tensor) -> Tensor:
        gate_up_proj, gate_up_bias, down_proj, down_bias = parameters
        gate_up = self._changed("gate_up_proj", expert, x, x @ gate_up_proj + gate_up_bias)
        products = self.act_fn(*self._halves(gate_up))
        self._observe(expert, x, products)
        return self._changed(_DOWN, expert, products, products @ down_proj + down_bias)

    def _halves(self, gate_up: Tensor) -> tuple[Tensor, Tensor]:
        """Split products of `gate_up_proj`, in which gate and up take turns."""
        return _every_other(gate_up, _GATE), _every_other(gate_up, _UP)

    def _matrix(self, name: str) -> Tensor:
        whole = self.down_proj if name == _DOWN else _every_other(self.gate_up_proj, name)
        return whole.detach().transpose(1, 2)

    def _bias(self, name: str) -> Tensor:
        whole = self.down_proj_bias if name == _DOWN else _every_other(self.gate_up_proj_bias, name)
        return whole.detach()

    def slots(self) -> Iterable[Slot]:
        """List the matrices and the biases of all experts, as they are in files."""
        yield from super().slots()
        for name in MATRICES:
            yield Slot(f"{name}.bias", tuple(self._bias(name).shape), partial(self._bias, name))

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the matrices or of the biases of all experts."""
        matrix, _, kind = name.partition(".")
        parameter = "down_proj" if matrix == _DOWN else "gate_up_proj"
        parameter = f"{parameter}_bias" if kind == "bias" else parameter
        if (old := self.get_parameter(parameter)).is_meta:
            empty = torch.empty(old.shape, dtype=tensor.dtype, device=tensor.device)
            setattr(self, parameter, nn.Parameter(empty))
        (self._bias if kind == "bias" else self._matrix)(matrix).copy_(tensor)


def _every_other(whole: Tensor, name: str) -> Tensor:
    """Return the columns of gates or of ups."""
    return whole[..., int(name == _UP) :: 2]


class QuantizedClampedExperts(QuantizedExperts):
    """The packed form of `ClampedExperts`: `gate_proj_bias` is `(E, I)`, and so are biases of the others."""

    gate_proj_bias: nn.Parameter
    up_proj_bias: nn.Parameter
    down_proj_bias: nn.Parameter

    def make_plain(self, experts: int, hidden_size: int, intermediate_size: int) -> ClampedExperts:
        """Create the plain form."""
        return ClampedExperts(experts, hidden_size, intermediate_size, self.act_fn)

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        matrices = (self.gate_proj, self.up_proj, self.down_proj)
        biases = (self.gate_proj_bias, self.up_proj_bias, self.down_proj_bias)
        parameters = (*matrices, *biases, *self.scales().values())
        return mix(self._expert, parameters, input, chosen, weights)

    def _expert(self, expert: int | None, x: Tensor, *parameters: Tensor) -> Tensor:
        gate_proj, up_proj, down_proj, gate_bias, up_bias, down_bias, *scales = parameters
        scale = dict(zip(self.scales(), scales, strict=True)) if scales else {}
        kinds = self.quant_types
        gate = scaled_linear(x, gate_proj, kinds[_GATE], gate_bias, scale.get(_GATE))
        up = scaled_linear(x, up_proj, kinds[_UP], up_bias, scale.get(_UP))
        products = self.act_fn(*self._changed_pair(expert, x, gate, up))
        self._observe(expert, x, products)
        down = scaled_linear(products, down_proj, kinds[_DOWN], down_bias, scale.get(_DOWN))
        return self._changed(_DOWN, expert, products, down)

    def _halves(self, gate_up: Tensor) -> tuple[Tensor, Tensor]:
        """Split products of `gate_up_proj`, in which gate and up take turns."""
        return _every_other(gate_up, _GATE), _every_other(gate_up, _UP)

    def _biases(self) -> dict[str, Tensor]:
        return {n: p.detach() for n in MATRICES if (p := getattr(self, f"{n}_bias", None)) is not None}

    def slots(self) -> Iterable[Slot]:
        """List the matrices and the biases of all experts, as they are in files."""
        yield from super().slots()
        for name, bias in self._biases().items():
            yield Slot(f"{name}.bias", tuple(bias.shape), partial(parameter_of, self, f"{name}_bias"))

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the matrices or of the biases of all experts."""
        if name.endswith(".bias"):
            setattr(self, name.replace(".", "_"), nn.Parameter(tensor))
        else:
            super().fill(name, tensor)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Experts:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        plain = super().dequantize(dtype)
        for name, bias in self._biases().items():
            plain.fill(f"{name}.bias", bias.to(dtype))
        return plain
