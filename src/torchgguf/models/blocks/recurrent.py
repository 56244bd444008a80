"""`RecurrentMixer`: what layers have in common that remember a text in states of a fixed size.

Shape letters: B batch, T new positions, C channels.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks.step import Step
from torchgguf.nn import CausalConv1d, Convolution, Padding, Recurrent


class RecurrentMixer(nn.Module):
    """A mixer with a convolution or a recurrence along the text. Subclasses define `mix`.

    Padding is moved to the end of each row before `mix`, and back after it. So a subclass only prevents that
    padding changes its recurrent state.

    Attributes:
        layer_name: the attribute of a layer that holds the mixer.
        layer_idx: the number of the layer.
    """

    layer_name: ClassVar[str] = "mixer"
    layer_idx: int

    def init_parameters(self) -> None:
        """Initialize the parameters of a new model, except those of other layers inside."""

    def mix(self, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to what the layer adds to it.

        Args:
            x: the stream; in each row, padding comes last.
            step: what all layers share.
            padding: where it is; None: there is no padding.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to what the layer adds to it."""
        padding = step.padding
        if padding is None:
            return self.mix(x, step, None)
        return padding.restore(self.mix(padding.to_end(x), step, padding))

    def with_earlier(self, x: Tensor, size: int, step: Step, padding: Padding | None) -> Tensor:
        """Return the last `size` positions before the new ones, and the new ones: `(B, C, size + T)`.

        The last of both are remembered in the cache.

        Args:
            x: the new positions `(B, C, T)`.
            size: the size of a causal convolution's kernel, less 1.
            step: contains the cache.
            padding: as in `mix`.
        """
        if step.cache is None:
            return F.pad(x, (size, 0))
        lengths = None if padding is None else padding.lengths
        return step.cache.state(self.layer_idx, Convolution).append(x, size, lengths)

    def convolve(self, convolution: CausalConv1d, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Convolve the new positions `(B, C, T)`, after those that the cache remembers."""
        convolved: Tensor = convolution(self.with_earlier(x, convolution.earlier, step, padding))
        return convolved

    def read_state(
        self, shape: tuple[int, ...], step: Step, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the recurrent state before the new positions; zeros at the beginning of a text."""
        if step.cache is None:
            return torch.zeros(shape, dtype=dtype, device=device)
        return step.cache.state(self.layer_idx, Recurrent).read(shape, dtype, device)

    def write_state(self, state: Tensor, step: Step, new: int) -> None:
        """Remember the recurrent state after `new` positions."""
        if step.cache is not None:
            step.cache.state(self.layer_idx, Recurrent).advance(state, new)
