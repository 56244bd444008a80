"""Adapters of experts: each expert has its own, all in two tensors, as PEFT has them.

Shape letters: E experts, H size of the stream, I size of an expert, r rank.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn import Experts, QuantizedExperts
from torchgguf.nn.clamped_experts import ClampedExperts
from torchgguf.training.lora.layer import LoraLayer, place_of, plain_copy
from torchgguf.training.lora.settings import LoraSettings

EXPERT_LAYERS = (Experts, QuantizedExperts)


class LoraExperts(LoraLayer):
    """Experts and the adapters of their matrices, `gate_up_proj` and `down_proj` as in plain experts.

    `lora_A` of a matrix are `(E * r, in)`, expert after expert; `lora_B` are `(out, r * E)`, experts being
    the last dimension.
    """

    tables = MappingProxyType({"lora_A": "", "lora_B": ""})

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.matrix_scaling: dict[str, dict[str, float]] = {}
        self._experts.change = self._change

    @property
    def _experts(self) -> Experts | QuantizedExperts:
        assert isinstance(self.base_layer, EXPERT_LAYERS)
        return self.base_layer

    @property
    def original(self) -> nn.Module:
        """The experts without adapters."""
        self._experts.change = None
        return self._experts

    def _sizes_of(self, name: str) -> tuple[int, int, int]:
        """Return E, the output size and the input size of a matrix."""
        base = self._experts
        if isinstance(base, Experts):
            experts, hidden, inner = base.sizes
        else:
            (experts, hidden, _), inner = base.down_proj.shape, base.intermediate_size()
        if name == "down_proj":
            return experts, hidden, inner
        return experts, inner * (2 if name == "gate_up_proj" else 1), hidden

    def add_matrix(self, adapter: str, name: str, rank: int, scaling: float, settings: LoraSettings) -> None:
        """Create the adapters of one matrix of all experts, whose products are zero.

        Raises:
            ValueError: the settings ask for DoRA or for dropout.
        """
        if settings.use_dora or settings.dropout:
            raise ValueError("use_dora and dropout are unsupported for experts: leave out target_parameters")
        experts, outputs, inputs = self._sizes_of(name)
        place = place_of(self.base_layer)
        a = torch.empty(experts * rank, inputs, device=place, dtype=torch.float32)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        b = torch.zeros(outputs, rank * experts, device=place, dtype=torch.float32)
        self._matrices(self.lora_A, adapter)[name] = nn.Parameter(a)
        self._matrices(self.lora_B, adapter)[name] = nn.Parameter(b)
        self.scaling[adapter] = 1.0
        self.matrix_scaling.setdefault(adapter, {})[name] = scaling

    def _matrices(self, table: nn.ModuleDict, adapter: str) -> nn.ParameterDict:
        if adapter not in table:
            table[adapter] = nn.ParameterDict()
        matrices = table[adapter]
        assert isinstance(matrices, nn.ParameterDict)
        return matrices

    def adapter_parameters(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield an adapter's parameters by their names in PEFT's files, after the path of the layer.

        PEFT wraps the experts once for each matrix; in names, the last one is the outer one.
        """
        if name not in self.scaling:
            return
        adapted = [m for m in self._experts.parameters_of_plain if m in self.matrix_scaling[name]]
        for depth, matrix in enumerate(reversed(adapted)):
            for table in ("lora_A", "lora_B"):
                parameter = self._matrices(getattr(self, table), name)[matrix]
                yield f"{'base_layer.' * depth}{table}.weight", parameter

    def remove(self, name: str) -> None:
        """Delete an adapter."""
        super().remove(name)
        del self.matrix_scaling[name]

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        layer = self.merged_layer[0] if self.is_merged else self.base_layer
        output: Tensor = layer(input, chosen, weights)
        return output

    def _applying_to(self, matrix: str) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield `(E, r, in)`, `(E, out, r)` and the factor of each active adapter of a matrix."""
        experts = self._sizes_of(matrix)[0]
        for name, factor in self.applying():
            if matrix in self.matrix_scaling[name]:
                a = self._matrices(self.lora_A, name)[matrix]
                b = self._matrices(self.lora_B, name)[matrix]
                yield (
                    a.view(experts, -1, a.shape[1]),
                    b.view(b.shape[0], -1, experts).permute(2, 0, 1),
                    factor * self.matrix_scaling[name][matrix],
                )

    def _change(self, matrix: str, expert: int | None, rows: Tensor) -> Tensor | None:
        """Return what the active adapters add to the products of one expert's matrix."""
        added = None
        for a, b, scaling in self._applying_to(matrix):
            if expert is None:
                raise NotImplementedError("experts with adapters are not compiled: merge the adapters first")
            product = F.linear(F.linear(rows.to(a.dtype), a[expert]), b[expert]) * scaling
            added = product if added is None else added + product
        return None if added is None else added.to(rows.dtype)

    def merge(self) -> nn.Module:
        """Return plain experts that compute what these do with the adapters that are active."""
        change, self._experts.change = self._experts.change, None
        plain = plain_copy(self._experts)
        self._experts.change = change
        with torch.no_grad():
            for matrix in self._experts.parameters_of_plain:
                for a, b, scaling in self._applying_to(matrix):
                    delta = b @ a * scaling  # (E, out, in)
                    transposed = isinstance(plain, ClampedExperts)
                    plain.get_parameter(matrix).add_(delta.transpose(1, 2) if transposed else delta)
        return plain
