"""A linear layer whose rows GGUF files contain as several matrices, one above the other."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from torchgguf.nn.factors import scaled_linear, unpacked
from torchgguf.nn.layers import Linear
from torchgguf.nn.packed_matrices import PackedMatrices
from torchgguf.nn.slots import Slot
from torchgguf.quants import QuantType


class StackedLinear(Linear):
    """A `Linear` without a bias, of matrices of equal heights.

    Args:
        in_features: size of the input's last dimension.
        out_features: size of the output's last dimension.
        parts: names of the matrices, from top to bottom.
    """

    def __init__(self, in_features: int, out_features: int, parts: Sequence[str]) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.parts = tuple(parts)

    def _part(self, name: str) -> Tensor:
        return self.weight.detach().chunk(len(self.parts))[self.parts.index(name)]

    def slots(self) -> Iterable[Slot]:
        """List the matrices."""
        for name in self.parts:
            read = partial(self._part, name)
            yield Slot(f"{name}.weight", tuple(read().shape), read, packable=True, factors=(1,))

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the matrices."""
        if self.weight.is_meta:
            empty = torch.empty(self.weight.shape, dtype=tensor.dtype, device=tensor.device)
            self.weight = nn.Parameter(empty)
        self._part(name.removesuffix(".weight")).copy_(tensor)

    def pack(
        self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype
    ) -> "QuantizedStackedLinear":
        """Return the packed layer, as in `SlottedLayer.pack`."""
        packed = QuantizedStackedLinear(self.parts).pack(name, blocks, quant_type, dtype)
        for slot in self.slots():
            if slot.name != name and not (matrix := slot.read()).is_meta:
                packed.fill(slot.name, matrix)
        return packed


class QuantizedStackedLinear(PackedMatrices):
    """The packed form of `StackedLinear`: each matrix is uint8 `(rows, bytes_per_row)`, of its own type.

    Args:
        parts: names of the matrices, from top to bottom, which come by `pack` or `fill`.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def _sizes(self) -> list[tuple[int, ...]]:
        return [slot.shape for slot in self.slots() if slot.packable]

    @property
    def in_features(self) -> int:
        """Size of the input's last dimension."""
        return self._sizes()[0][1]

    @property
    def out_features(self) -> int:
        """Size of the output's last dimension."""
        return sum(rows for rows, _ in self._sizes())

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)` in the input's dtype."""
        outputs = [
            scaled_linear(
                input, getattr(self, name), self.quant_types[name], scale=self.factor(f"{name}.weight")
            )
            for name in self.parts
        ]
        return torch.cat(outputs, dim=-1)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> StackedLinear:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        with torch.device("meta"):
            plain = StackedLinear(self.in_features, self.out_features, self.parts)
        for name, kind in self.quant_types.items():
            scale = self.factor(f"{name}.weight")
            plain.fill(f"{name}.weight", unpacked(getattr(self, name), kind, dtype, scale))
        return plain

    def extra_repr(self) -> str:
        """Show the types, as in `gate_proj=Q4_K, up_proj=Q4_K`."""
        return ", ".join(f"{name}={kind.name}" for name, kind in self.quant_types.items())
