"""Keys and values that a decoder computes from the states of an encoder, once for a whole text.

Shape letters: B batch, H heads, E positions of the encoder, D head size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from torchgguf.nn.cache.state import State, refuse_graph, reordered, writable


class EncodedKeyValues(State):
    """Keys and values `(B, H, E, D)` of an encoder's states, the same at every position of the text.

    The state counts the positions of the text as all others do, but stores none of them.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    _is_filled = False  # of a fixed size, tensors stay in place although they are forgotten

    @property
    def rows(self) -> int:
        """The number of rows of the batch, 0 if nothing is remembered."""
        return 0 if self.keys is None else len(self.keys)

    def advance(self, new: int, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Count `new` positions of the text; return keys and values, which are computed the first time.

        Raises:
            RuntimeError: a gradient is wanted of what a cache of a fixed size would overwrite.
        """
        self._length += new
        if self.keys is None or self.values is None or not self._is_filled:
            self._store(*compute())
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def _store(self, keys: Tensor, values: Tensor) -> None:
        if self.room is not None:
            refuse_graph(keys, values)
            if self.keys is not None and self.values is not None and self.keys.shape == keys.shape:
                keys = writable(self.keys).copy_(keys)
                values = writable(self.values).copy_(values)
        self.keys, self.values, self._is_filled = keys, values, True

    def reorder(self, rows: Tensor) -> None:
        """Make row i of the batch a copy of the row `rows[i]`; as many rows of a fixed size stay in place."""
        if self.keys is not None and self.values is not None:
            in_place = self.room is not None
            self.keys, self.values = (reordered(x, rows, in_place) for x in (self.keys, self.values))

    def can_crop(self, length: int) -> bool:
        """Return True: keys and values do not depend on the text."""
        return True

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions; at 0, the encoder's states are forgotten, too."""
        self._length = min(self._length, length)
        if self.room is not None:
            self.room.crop(length)
            self._is_filled = self._is_filled and length > 0
        elif length == 0:
            self.keys, self.values, self._is_filled = None, None, False

    def tensors(self) -> dict[str, Tensor]:
        """Return keys and values `(B, H, E, D)`."""
        if self.keys is None or self.values is None or not self._is_filled:
            return {}
        return {"keys": self.keys, "values": self.values}

    def fill(self, tensors: dict[str, Tensor], length: int) -> None:
        """Remember keys and values in a state that is empty."""
        keys, values = tensors["keys"], tensors["values"]
        for x in (keys, values):
            if x.dim() != 4 or x.shape[:3] != keys.shape[:3] or not x.is_floating_point():
                raise ValueError(
                    "keys and values must be floating point of one shape (rows, heads, positions, size), "
                    f"got {x.dtype} of {tuple(x.shape)}"
                )
        with torch.no_grad():
            self._store(keys, values)
        self._length = length
