"""A convolution along the text as a layer.

Shape letters: B batch, C channels, T new positions, K size of the kernel.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from torchgguf.nn.recurrence import causal_convolution
from torchgguf.nn.slots import Slot, SlottedLayer


class CausalConv1d(SlottedLayer):
    """A convolution of each channel with its own kernel, which sees no later positions.

    `weight` is `(C, 1, K)` and `bias` is `(C,)`, as in a depthwise `torch.nn.Conv1d`; both are set by the
    model. In GGUF files the weight is `(C, K)`.

    Args:
        channels: the number of channels.
        kernel_size: the size of the kernels.
        bias: whether there is a bias.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, kernel_size: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(channels)) if bias else None)

    @property
    def earlier(self) -> int:
        """The number of positions before its own that the convolution sees, K - 1."""
        return self.weight.shape[-1] - 1

    def forward(self, x: Tensor) -> Tensor:
        """Map the new positions and the K - 1 before them, `(B, C, K - 1 + T)`, to `(B, C, T)`."""
        return causal_convolution(x, self.weight[:, 0], self.bias)

    def slots(self) -> Iterable[Slot]:
        """List the weight as it is in files, and the bias."""
        for slot in super().slots():
            if slot.name == "weight":
                yield replace(slot, shape=(slot.shape[0], slot.shape[2]), read=self._kernels)
            else:
                yield slot

    def _kernels(self) -> Tensor:
        return self.weight.detach()[:, 0]

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the weight as it is in files, or the bias."""
        super().fill(name, tensor[:, None] if name == "weight" else tensor)

    def extra_repr(self) -> str:
        """Show the sizes, as in `64 channels, kernel_size=3, bias=False`."""
        channels, _, size = self.weight.shape
        return f"{channels} channels, kernel_size={size}, bias={self.bias is not None}"
