"""Adapters of projections between heads and latent vectors, which are used in both directions.

Shape letters: B batch, H heads, T positions, R size of latent vectors, N size of a key, V size of a value,
r rank.
"""

from typing import Any

import torch
from torch import Tensor

from torchgguf.nn import LatentProjection, QuantizedLatentProjection
from torchgguf.training.lora.linear import LoraLinear
from torchgguf.training.lora.settings import LoraSettings

LATENT_PROJECTIONS = (LatentProjection, QuantizedLatentProjection)


class LoraLatentProjection(LoraLinear):
    """A latent projection and its adapters: `lora_A` are `(r, R)`, `lora_B` `(H * (N + V), r)`."""

    def add(self, name: str, rank: int, scaling: float, settings: LoraSettings) -> None:
        """Create an adapter whose product is zero, as `LoraLinear.add`.

        Raises:
            ValueError: the settings ask for DoRA.
        """
        if settings.use_dora:
            raise ValueError("use_dora=True is unsupported for kv_b_proj: leave it out of target_modules")
        super().add(name, rank, scaling, settings)

    def forward(self, input: Tensor, *args: Any, **options: Any) -> Tensor:
        """Map queries `(B, H, T, N)`, means `(B, H, T, R)` or latent vectors, as the base layer."""
        if not args or args[0] is None or self.is_merged:
            return super().forward(input, *args, **options)
        (to_latent,) = args
        output: Tensor = self.base_layer(input, to_latent)
        heads, _, key_size, _ = self.sizes
        for factors in self.factors():
            rows = factors.b.view(heads, -1, factors.b.shape[1])
            x = input.to(rows.dtype)
            if to_latent:
                product = x @ rows[:, :key_size] @ factors.a
            else:
                low = x if factors.dropout is None else factors.dropout(x)
                product = low @ factors.a.t() @ rows[:, key_size:].transpose(1, 2)
            output = torch.add(output, product.to(output.dtype), alpha=factors.scaling)
        return output
