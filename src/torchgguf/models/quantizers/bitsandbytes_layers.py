"""bitsandbytes' layers, as models here hold them. Importing this module needs bitsandbytes."""

from collections.abc import Callable
from typing import Self

from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor

from torchgguf.nn.foreign import kept_as_bytes


class KeptLinear4bit(Linear4bit):
    """A 4-bit layer whose weights are bytes for casts, although the library may view them as floats.

    A cast of the layer, of a part of the model, or of all of it leaves them alone.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with kept_as_bytes(self):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
