"""The projection between heads and the latent vectors to which keys and values are compressed.

DeepSeek-V2 (2024, arXiv 2405.04434, section 2.1.2). Shape letters: B batch, H heads, T positions, R size of
latent vectors, N size of a key, V size of a value.
"""

from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf import kernels
from torchgguf.nn.packed_matrices import PackedMatrices
from torchgguf.nn.slots import Slot, SlottedLayer
from torchgguf.quants import QuantType

# As files call the matrices of all heads, `attn_k_b` and `attn_v_b`.
_KEYS, _VALUES = "k", "v"


class _Sizes:
    """Sizes of the projection from latent vectors to keys and values of all heads.

    Attributes:
        sizes: H, R, N, V.
    """

    sizes: tuple[int, int, int, int]

    @property
    def in_features(self) -> int:
        """Size of latent vectors, by the name of linear layers."""
        return self.sizes[1]

    @property
    def out_features(self) -> int:
        """Size of keys and values of all heads, by the name of linear layers."""
        heads, _, key_size, value_size = self.sizes
        return heads * (key_size + value_size)


class LatentProjection(_Sizes, SlottedLayer):
    """The weights that expand latent vectors to keys and values of all heads, used the other way round.

    Queries are mapped to latent vectors, and compared with what the cache stores, without expanding it. Means
    of latent vectors are mapped to means of values.

    `weight` is `(H * (N + V), R)`, as in transformers: in each head the rows of keys above those of values.
    It is set by the model. In GGUF files keys are `(H, R, N)`, and values `(H, V, R)`.
    """

    def __init__(self, heads: int, latent_size: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.sizes = heads, latent_size, key_size, value_size
        self.weight = nn.Parameter(torch.empty(heads * (key_size + value_size), latent_size))

    def forward(self, input: Tensor, to_latent: bool | None = None) -> Tensor:
        """Map queries `(B, H, T, N)` to `(B, H, T, R)`; or, if not `to_latent`, those to `(B, H, T, V)`.

        With None, latent vectors `(..., R)` are expanded to `(..., H * (N + V))`, as in transformers.
        """
        if to_latent is None:
            return F.linear(input, self.weight)
        rows = self._rows(self.weight, _KEYS if to_latent else _VALUES)
        return input @ (rows if to_latent else rows.transpose(1, 2))

    def _rows(self, weight: Tensor, name: str) -> Tensor:
        heads, latent_size, key_size, _ = self.sizes
        rows = weight.view(heads, -1, latent_size)
        return rows[:, :key_size] if name == _KEYS else rows[:, key_size:]

    def _matrix(self, name: str) -> Tensor:
        """Return the matrices of all heads, as they are in files: a view."""
        rows = self._rows(self.weight.detach(), name)
        return rows.transpose(1, 2) if name == _KEYS else rows

    def _stored(self, name: str) -> Tensor:
        return self._matrix(name).contiguous()

    def slots(self) -> Iterable[Slot]:
        """List the matrices of keys and of values, as they are in files."""
        for name in (_KEYS, _VALUES):
            shape = tuple(self._matrix(name).shape)
            yield Slot(f"{name}.weight", shape, partial(self._stored, name), packable=True)

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the matrices of keys or of values."""
        if self.weight.is_meta:
            empty = torch.empty(self.weight.shape, dtype=tensor.dtype, device=tensor.device)
            self.weight = nn.Parameter(empty)
        self._matrix(name.removesuffix(".weight")).copy_(tensor)

    def pack(
        self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype
    ) -> "QuantizedLatentProjection":
        """Return the packed layer, as in `SlottedLayer.pack`."""
        packed = QuantizedLatentProjection(*self.sizes).pack(name, blocks, quant_type, dtype)
        for slot in self.slots():
            if slot.name != name and not (matrix := slot.read()).is_meta:
                packed.fill(slot.name, matrix)
        return packed

    def extra_repr(self) -> str:
        """Show the sizes, as in `16 heads, 512 -> 128 + 128`."""
        return _shown(*self.sizes)


class QuantizedLatentProjection(_Sizes, PackedMatrices):
    """A `LatentProjection` whose matrices stay in their GGUF blocks.

    `k` is uint8 `(H, R, bytes_per_row)`, `v` `(H, V, bytes_per_row)`, each of its own type. They have no
    gradient; the input has.
    """

    k: nn.Parameter
    v: nn.Parameter

    def __init__(self, heads: int, latent_size: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.sizes = heads, latent_size, key_size, value_size

    def forward(self, input: Tensor, to_latent: bool | None = None) -> Tensor:
        """Map queries, means or latent vectors, as `LatentProjection.forward`."""
        if to_latent is None:
            return self._expand(input)
        blocks, kind = (self.k, self.quant_types[_KEYS]) if to_latent else (self.v, self.quant_types[_VALUES])
        heads = zip(input.unbind(1), blocks.unbind(), strict=True)
        return torch.stack([kernels.linear(x, matrix, kind) for x, matrix in heads], dim=1)

    def _expand(self, latent: Tensor) -> Tensor:
        heads = self.sizes[0]
        keys = kernels.dequantize(self.k, self.quant_types[_KEYS], latent.dtype)  # (H, R, N)
        values = kernels.linear(latent, self.v.flatten(0, 1), self.quant_types[_VALUES])
        parts = (torch.einsum("...r,hrn->...hn", latent, keys), values.unflatten(-1, (heads, -1)))
        return torch.cat(parts, dim=-1).flatten(-2)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> LatentProjection:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        with torch.device("meta"):
            plain = LatentProjection(*self.sizes)
        for name, kind in self.quant_types.items():
            plain.fill(name, kernels.dequantize(getattr(self, name), kind, dtype))
        return plain

    def extra_repr(self) -> str:
        """Show the sizes and the types, as in `16 heads, 512 -> 128 + 128, k=Q8_0, v=Q4_K`."""
        types = ", ".join(f"{name}={kind.name}" for name, kind in self.quant_types.items())
        return f"{_shown(*self.sizes)}, {types}"


def _shown(heads: int, latent_size: int, key_size: int, value_size: int) -> str:
    return f"{heads} heads, {latent_size} -> {key_size} + {value_size}"
