"""`CausalConv1d`: a convolution along the text, as recurrent layers contain it."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchgguf.nn.file_forms import SQUEEZED_KERNELS, FormedLayer
from torchgguf.nn.recurrence import causal_convolution


class CausalConv1d(FormedLayer):
    """A causal convolution of each channel with its own kernel.

    `weight` is `(channels, 1, kernel_size)`, `bias` `(channels,)` or None, named as in `torch.nn.Conv1d`. In
    GGUF files the weight is `(channels, kernel_size)`.

    Args:
        channels: number of channels.
        kernel_size: number of positions that a kernel covers, the last one being the position itself.
        bias: whether there is a bias.
    """

    file_forms: ClassVar = {"weight": SQUEEZED_KERNELS}

    bias: nn.Parameter | None

    def __init__(self, channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(channels)) if bias else None)

    @property
    def earlier(self) -> int:
        """The number of positions before the first new one that the convolution reads."""
        return self.weight.shape[-1] - 1

    def reset_parameters(self) -> None:
        """Initialize the weight as `torch.nn.Conv1d` does, the bias to zero."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve earlier and new positions `(B, channels, earlier + T)` to new ones `(B, channels, T)`."""
        return causal_convolution(x, self.weight[:, 0], self.bias)

    def extra_repr(self) -> str:
        """Show the sizes."""
        channels, _, size = self.weight.shape
        return f"{channels}, kernel_size={size}, bias={self.bias is not None}"
