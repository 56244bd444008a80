"""Norms of a recurrent layer's output, with its gate.

Shape letters: G groups, I size of the last dimension.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn.slots import Slot, SlottedLayer


class GatedGroupRMSNorm(SlottedLayer):
    """RMSNorm of each group of `x * silu(gate)`, computed in float32, as in Mamba 2 (arXiv 2405.21060).

    `weight` is `(I,)`; in GGUF files it is `(G, I / G)`.

    Args:
        size: the size I of the last dimension.
        groups: the number of groups of equal size, each with its own mean.
        eps: added to the mean square.
    """

    def __init__(self, size: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Normalise `(..., I)`, in the dtype of `x`."""
        gated = x.float() * F.silu(gate.float())
        return (self.weight * self.normalised(gated).to(x.dtype)).to(x.dtype)

    def normalised(self, x: Tensor) -> Tensor:
        """Divide each group of `(..., I)` by the root of its mean square."""
        groups = x.unflatten(-1, (self.groups, -1))
        return F.rms_norm(groups, groups.shape[-1:], None, self.eps).flatten(-2)

    def slots(self) -> Iterable[Slot]:
        """List the weight as it is in files."""
        for slot in super().slots():
            yield replace(slot, shape=(self.groups, slot.shape[0] // self.groups), read=self._by_group)

    def _by_group(self) -> Tensor:
        return self.weight.detach().view(self.groups, -1)

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the weight as it is in files."""
        super().fill(name, tensor.flatten())

    def extra_repr(self) -> str:
        """Show the sizes and the epsilon."""
        return f"{tuple(self.weight.shape)}, groups={self.groups}, eps={self.eps}"


class GroupRMSNormThenGate(GatedGroupRMSNorm):
    """RMSNorm of each group of `x`, times `silu(gate)`, computed in float32."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Normalise `(..., I)`, in the dtype of `x`."""
        normed = self.weight.float() * self.normalised(x.float())
        return (normed * F.silu(gate.float())).to(x.dtype)


class GateAlone(nn.Module):
    """`x * silu(gate)`, in the place of a norm."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Scale `(..., I)`, in the dtype of `x`."""
        return (x * F.silu(gate)).to(x.dtype)
