"""`PackedMatrices`: the base of layers that hold several packed tensors of matrices, each of its own type."""

from collections.abc import Iterable
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from torchgguf.container.tensor_types import type_of_dtype
from torchgguf.nn.factors import is_factor
from torchgguf.nn.slots import PackedLayer, Slot, parameter_of
from torchgguf.quants import QuantType, quant_type as find_quant_type


class PackedMatrices(PackedLayer):
    """A layer that holds several tensors of matrices in their GGUF blocks.

    Parameters are uint8 `(..., rows, bytes_per_row)`, without a gradient. Those that are missing come by
    `pack` or `fill`.

    Attributes:
        quant_types: types of the parameters by their names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.quant_types: dict[str, QuantType] = {}

    def twin(self) -> Self:
        """Return a layer that shares all parameters and their types, and can be given others."""
        twin = super().twin()
        twin.quant_types = self.quant_types.copy()
        return twin

    def _set(self, name: str, blocks: Tensor, quant_type: QuantType) -> None:
        self.quant_types[name] = quant_type
        setattr(self, name, nn.Parameter(blocks, requires_grad=False))

    def slots(self) -> Iterable[Slot]:
        """List the tensors, as they are in files."""
        for name, kind in self.quant_types.items():
            blocks: Tensor = getattr(self, name)
            shape = (*blocks.shape[:-1], kind.weights_per_row(blocks.shape[-1]))
            # The blocks may come after the slots are listed.
            read = partial(parameter_of, self, name)
            yield Slot(f"{name}.weight", shape, read, kind, packable=True)
            yield from self.factor_slots(f"{name}.weight")

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the tensors, and leave its numbers as they are, or factors."""
        if is_factor(name):
            super().fill(name, tensor)
            return
        kind = type_of_dtype(tensor.dtype)
        assert kind is not None
        self._set(name.removesuffix(".weight"), tensor.contiguous().view(torch.uint8), find_quant_type(kind))

    def pack(self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype) -> Self:
        """Store blocks, as in `SlottedLayer.pack`, and return itself."""
        self._set(name.removesuffix(".weight"), blocks, quant_type)
        return self
