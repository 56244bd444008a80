"""The interface of layers that adapters change, with PEFT's names of modules and parameters.

A layer that is adapted becomes the `base_layer` of a `LoraLayer`, which stands in its place and has its
attributes.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.nn import Conv1D, PackedLayer
from torchgguf.training.lora.settings import LoraSettings


class AdapterLayer(nn.Module):
    """What stands in the place of a layer that adapters change.

    Attributes:
        active: factors on the adapters that apply, by their names; 1 unless set otherwise.
    """

    active: dict[str, float]

    def adapter_names(self) -> list[str]:
        """Return the names of the adapters of this layer."""
        raise NotImplementedError

    def adapter_parameters(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield an adapter's parameters by their names in PEFT's files, after the path of the layer."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Delete an adapter."""
        raise NotImplementedError

    @property
    def original(self) -> nn.Module:
        """The layer without adapters."""
        raise NotImplementedError

    def merge(self) -> nn.Module:
        """Return a plain layer that computes what this layer does with the adapters that are active."""
        raise NotImplementedError

    def set_active(self, factors: Mapping[str, float]) -> None:
        """Apply these adapters, with these factors, and let their parameters have gradients, no others."""
        self.active = {name: factor for name, factor in factors.items() if name in self.adapter_names()}
        for name in self.adapter_names():
            for _, parameter in self.adapter_parameters(name):
                parameter.requires_grad_(name in self.active)


class LoraLayer(AdapterLayer):
    """A layer and its adapters, `base(x) + scaling * B(A(x))` each.

    Attributes:
        tables: attributes with parameters by the names of adapters, and the names of these in PEFT's files.
        base_layer: the layer, frozen.
        scaling: factors on products, by the name of the adapter.
        merged_layer: replaces layer and adapters while they are merged; a list hides it from `modules`.
    """

    tables: ClassVar[Mapping[str, str]]
    base_layer: nn.Module

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.active = {}
        self.scaling: dict[str, float] = {}
        self.merged_layer: list[nn.Module] = []

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer, such as `weight`, that this class lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def add(self, name: str, rank: int, scaling: float, settings: LoraSettings) -> None:
        """Create an adapter whose product is zero."""
        raise NotImplementedError

    def set_active(self, factors: Mapping[str, float]) -> None:
        """Apply these adapters as in `AdapterLayer`; none is merged then."""
        self.merged_layer = []
        super().set_active(factors)

    @property
    def is_merged(self) -> bool:
        """Whether `merged_layer` applies."""
        return bool(self.merged_layer and self.active)

    def adapter_names(self) -> list[str]:
        """Return the names of the adapters of this layer."""
        return list(self.scaling)

    @property
    def original(self) -> nn.Module:
        """The layer without adapters."""
        return self.base_layer

    def adapter_parameters(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield an adapter's parameters by their names in PEFT's files, after the path of the layer."""
        for table, its_name in self.tables.items():
            entries = getattr(self, table)
            if name in entries:
                entry = entries[name]
                yield its_name, entry if isinstance(entry, nn.Parameter) else entry.weight

    def remove(self, name: str) -> None:
        """Delete an adapter."""
        self.active.pop(name, None)
        del self.scaling[name]
        for table in self.tables:
            if name in getattr(self, table):
                del getattr(self, table)[name]

    def applying(self) -> Iterator[tuple[str, float]]:
        """Yield the adapters that are active, with the factors on their products."""
        for name, factor in self.active.items():
            yield name, factor * self.scaling[name]


def place_of(layer: nn.Module) -> torch.device:
    """Return the device of a layer's parameters."""
    return next(layer.parameters()).device


def plain_copy(layer: nn.Module) -> nn.Module:
    """Return an unpacked copy of a layer, without gradients."""
    plain = layer.dequantize() if isinstance(layer, PackedLayer) else deepcopy(layer)
    return plain.requires_grad_(False)


def weight_of(layer: nn.Module) -> Tensor:
    """Return the weight of a plain linear layer, as `(out_features, in_features)`: a view."""
    assert isinstance(layer.weight, Tensor)
    weight = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight
