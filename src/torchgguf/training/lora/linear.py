"""Adapters of linear layers. Shape letters: I in_features, O out_features, r rank."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn import Conv1D, LatentProjection, QuantizedLatentProjection, QuantizedLinear
from torchgguf.nn.grouped_rows import QuantizedGroupedRowsLinear
from torchgguf.nn.stacked import QuantizedStackedLinear
from torchgguf.training.lora.layer import LoraLayer, place_of, plain_copy, weight_of
from torchgguf.training.lora.products import adapted_linear
from torchgguf.training.lora.settings import LoraSettings

# All have `in_features`, `out_features` and `forward(input)`.
LINEAR_LAYERS = (
    nn.Linear,
    Conv1D,
    LatentProjection,
    QuantizedGroupedRowsLinear,
    QuantizedLatentProjection,
    QuantizedLinear,
    QuantizedStackedLinear,
)


class Magnitude(nn.Module):
    """Magnitudes `(O,)` of the rows of a weight, which DoRA trains separately from their directions.

    Attributes:
        base_norms: norms of the rows of the frozen weight.
    """

    base_norms: Tensor

    def __init__(self, base_norms: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(base_norms.clone())
        self.register_buffer("base_norms", base_norms, persistent=False)


@dataclass(frozen=True, slots=True)
class Factors:
    """What an adapter consists of in one layer: `a` is `(r, I)`, `b` `(O, r)`."""

    a: Tensor
    b: Tensor
    scaling: float
    dropout: nn.Module | None
    magnitude: Magnitude | None


class LoraLinear(LoraLayer):
    """A linear layer and its adapters: `lora_A` are `(r, I)`, `lora_B` `(O, r)`, magnitudes `(O,)`."""

    tables = MappingProxyType(
        {
            "lora_A": "lora_A.weight",
            "lora_B": "lora_B.weight",
            "lora_magnitude_vector": "lora_magnitude_vector",
        }
    )

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.lora_dropout = nn.ModuleDict()
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.lora_magnitude_vector = nn.ModuleDict()

    def add(self, name: str, rank: int, scaling: float, settings: LoraSettings) -> None:
        """Create an adapter whose product is zero: A is uniform, as in `nn.Linear`, B is zero."""
        device = place_of(self.base_layer)
        a = nn.Linear(self.in_features, rank, bias=False, device=device, dtype=torch.float32)
        b = nn.Linear(rank, self.out_features, bias=False, device=device, dtype=torch.float32)
        nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        nn.init.zeros_(b.weight)
        self.lora_A[name], self.lora_B[name], self.scaling[name] = a, b, scaling
        if settings.dropout:
            self.lora_dropout[name] = nn.Dropout(settings.dropout)
        if settings.use_dora:
            norms = torch.linalg.vector_norm(weight_of(plain_copy(self.base_layer)).float(), dim=1)
            self.lora_magnitude_vector[name] = Magnitude(norms)

    def remove(self, name: str) -> None:
        """Delete an adapter."""
        super().remove(name)
        if name in self.lora_dropout:
            del self.lora_dropout[name]

    def forward(self, input: Tensor, *args: Any, **options: Any) -> Tensor:
        """Map `(..., I)` to `(..., O)`, in the dtype that the base layer returns."""
        if self.is_merged:
            merged: Tensor = self.merged_layer[0](input, *args, **options)
            return merged
        adapters = list(self.factors())
        if len(adapters) == 1 and self._can_fuse(input, adapters[0]):
            base, only = self.base_layer, adapters[0]
            assert isinstance(base, QuantizedLinear)
            type_id = base.quant_type.id
            return adapted_linear(input, base.weight, type_id, base.bias, only.a, only.b, only.scaling)
        base_output: Tensor = self.base_layer(input, *args, **options)
        output = base_output
        for factors in adapters:
            if factors.magnitude is None:
                output = _add_product(output, input, factors)
            else:
                output = output + self._dora(base_output, input, factors, factors.magnitude)
        return output

    def _can_fuse(self, input: Tensor, factors: Factors) -> bool:
        """Return whether the product of the weight and that of the adapter are computed as one."""
        base = self.base_layer
        return (
            isinstance(base, QuantizedLinear)
            and type(base).forward is QuantizedLinear.forward
            and base.scale is None
            and (base.bias is None or not base.bias.requires_grad)
            and factors.dropout is None
            and factors.magnitude is None
            and input.dtype is torch.float32
            and input.numel() > 0
            and not (base._forward_hooks or base._forward_pre_hooks)
        )

    def factors(self) -> Iterator[Factors]:
        """Yield the matrices of active adapters."""
        dropouts = dict(self.lora_dropout.items()) if self.training else {}
        magnitudes = dict(self.lora_magnitude_vector.items())
        for name, scaling in self.applying():
            matrices: tuple[Any, Any] = self.lora_A[name].weight, self.lora_B[name].weight
            magnitude: Any = magnitudes.get(name)
            yield Factors(*matrices, scaling, dropouts.get(name), magnitude)

    def merge(self) -> nn.Module:
        """Return a plain layer that computes what this layer does with the adapters that are active."""
        plain = plain_copy(self.base_layer)
        weight = weight_of(plain)
        change = torch.zeros_like(weight, dtype=torch.float32)
        with torch.no_grad():
            for factors in self.factors():
                delta = factors.b @ factors.a * factors.scaling
                if factors.magnitude is not None:
                    new = weight + delta
                    delta = new * self._row_factors(factors, factors.magnitude)[:, None] - weight
                change += delta
            weight.add_(change)
        return plain

    def _dora(self, base_output: Tensor, input: Tensor, factors: Factors, magnitude: Magnitude) -> Tensor:
        """Return what DoRA adds to the output of the base layer: equation 5 of arXiv 2402.09353."""
        bias = self._bias()
        if factors.dropout is not None:
            input = factors.dropout(input)
            base_output = self.base_layer(input)
        product = base_output if bias is None else base_output - bias
        row_factors = self._row_factors(factors, magnitude)
        adapted = F.linear(F.linear(input.to(factors.a.dtype), factors.a), factors.b) * factors.scaling
        return ((row_factors - 1) * product + row_factors * adapted).to(base_output.dtype)

    def _row_factors(self, factors: Factors, magnitude: Magnitude) -> Tensor:
        """Return magnitudes by the norms of rows `(O,)`; norms count as constant in gradients.

        The squares of `|w + s b a|` are `|w|² + 2 s b · (a w) + s² b (a aᵀ) bᵀ`: so the weight stays packed.
        """
        with torch.no_grad():
            a, b, s = factors.a, factors.b, factors.scaling
            bias = self._bias()
            products = self.base_layer(a.to(self._input_dtype())).to(a.dtype)  # (r, O)
            if bias is not None:
                products = products - bias
            squares = (
                magnitude.base_norms**2
                + 2 * s * (b * products.t()).sum(1)
                + s * s * ((b @ (a @ a.t())) * b).sum(1)
            )
            norms = squares.clamp(min=0).sqrt()
        row_factors: Tensor = magnitude.weight / norms
        return row_factors

    def _bias(self) -> Tensor | None:
        """Return what the base layer adds to its products."""
        bias: Tensor | None = getattr(self.base_layer, "bias", None)
        if bias is None:
            return None
        if isinstance(self.base_layer, QuantizedLinear):
            return self.base_layer.plain_bias(bias)
        return bias.detach()

    def _input_dtype(self) -> torch.dtype:
        """Return the dtype that the base layer multiplies in."""
        weight = getattr(self.base_layer, "weight", None)
        return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else torch.float32


def _add_product(output: Tensor, input: Tensor, factors: Factors) -> Tensor:
    """Return `output + scaling * b(a(input))` in the dtype of `output`."""
    input = input.to(factors.a.dtype)
    if factors.dropout is not None:
        input = factors.dropout(input)
    product = F.linear(F.linear(input, factors.a), factors.b) * factors.scaling
    return (output + product).to(output.dtype)
