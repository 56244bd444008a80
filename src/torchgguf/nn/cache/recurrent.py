"""States of a fixed size a row, whatever the length of the text: of recurrent layers and of convolutions.

Shape letters: B batch, C channels, T new positions.
"""

import torch
from torch import Tensor

from torchgguf.nn.cache.state import Room, State, refuse_graph, reordered, writable


class Recurrent(State):
    """A tensor `(B, ...)` that every position changes, as in linear attention and in state-space models.

    What it was before a position is lost. So it can be cropped to 0 and to its present length only, or be
    restored from a snapshot.
    """

    goes_back = False
    value: Tensor | None = None

    @property
    def rows(self) -> int:
        """The number of rows of the batch, 0 if nothing is remembered."""
        return 0 if self.value is None else len(self.value)

    def read(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the state before the new positions: zeros, if there are none before them.

        Args:
            shape: of the state, the batch first.
            dtype: of the state, if it is new.
            device: of the state, if it is new.

        Raises:
            ValueError: the state has another shape.
        """
        if self.value is None:
            zeros = torch.zeros(shape, dtype=dtype, device=device)
            if self.room is None:
                return zeros
            self.value = zeros  # from now on in this place
        self.value = writable(self.value)  # a gradient may be wanted of what it is multiplied by
        if self.value.shape != shape:
            raise ValueError(f"a state of shape {tuple(self.value.shape)} must be read so, got {shape}")
        return self.value

    def advance(self, value: Tensor, new: int) -> None:
        """Replace the state by that after `new` more positions.

        Args:
            value: the state, of the shape that it is read in.
            new: the number of positions.

        Raises:
            ValueError: there is no room in a cache of a fixed size.
            RuntimeError: a gradient is wanted of what would be overwritten there.
        """
        if self.room is None:
            self.value = value
            self._length += new
            return
        refuse_graph(value)
        self.new_places(new, value.device)
        self.value = value.clone() if self.value is None else writable(self.value).copy_(value)

    def fixed(self, room: Room) -> "Recurrent":
        """Move the state to a tensor that keeps its place; return a state that shares it."""
        assert self.value is not None
        twin = type(self)(room)
        twin.value = self.value = self.value.clone(memory_format=torch.contiguous_format)
        return twin

    def follow(self, fixed: "Recurrent") -> bool:
        """Move the state to the tensor of another, unless it is there; see `State.follow`."""
        if self.value is not fixed.value:
            assert self.value is not None
            assert fixed.value is not None
            if self.value.shape != fixed.value.shape or self.value.dtype is not fixed.value.dtype:
                return False
            fixed.value.copy_(self.value)
            self.value = fixed.value
        return True

    def places(self) -> dict[str, Tensor]:
        """Return the state as `value`."""
        return self.tensors()

    def reorder(self, rows: Tensor) -> None:
        """Make row i of the batch a copy of the row `rows[i]`; as many rows of a fixed size stay in place."""
        if self.value is not None:
            self.value = reordered(self.value, rows, in_place=self.room is not None)

    def can_crop(self, length: int) -> bool:
        """Return whether the length is 0, or not below the present one."""
        return length == 0 or length >= self.length

    def crop(self, length: int) -> None:
        """Forget everything, if the length is 0.

        Raises:
            ValueError: the length is between 0 and the present one.
        """
        if not self.can_crop(length):
            raise ValueError(f"a recurrent state must be cropped to 0 or to {self.length}, got {length}")
        if length > 0:
            return
        if self.room is None:
            self.value, self._length = None, 0
        else:
            self.room.crop(0)
            if self.value is not None:
                self.value = writable(self.value).zero_()

    def snapshot(self) -> Tensor | None:
        """Return a copy of the state."""
        return None if self.value is None else self.value.detach().clone()

    def restore(self, snapshot: Tensor, length: int) -> None:
        """Go back to the length at which a snapshot was made."""
        if self.room is None:
            self.value, self._length = snapshot.clone(), length
            return
        self.room.crop(length)
        assert self.value is not None
        self.value = writable(self.value).copy_(snapshot)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as `value`."""
        return {} if self.value is None else {"value": self.value}

    def fill(self, tensors: dict[str, Tensor], length: int) -> None:
        """Remember `length` positions in a state that is empty."""
        value = tensors["value"]
        if not value.is_floating_point():
            raise ValueError(f"value must be floating point, got {value.dtype}")
        self.read(tuple(value.shape), value.dtype, value.device)
        self.advance(value, length)


class Convolution(Recurrent):
    """The last positions `(B, C, size)` before the new ones, as a causal convolution along the text needs."""

    def append(self, x: Tensor, size: int, lengths: Tensor | None = None) -> Tensor:
        """Put the last positions before the new ones, and remember the last of both.

        Args:
            x: the new positions, `(B, C, T)`.
            size: how many positions before its own the convolution looks at: its kernel's size less 1.
            lengths: the number of positions of each row before its padding, `(B,)` int64; None: all T.

        Returns:
            `(B, C, size + T)`; what is before the text is zero.

        Raises:
            ValueError: the state has another shape, or there is no room in a cache of a fixed size.
            RuntimeError: a gradient is wanted of what would be overwritten there.
        """
        batch, channels, new = x.shape
        joined = torch.cat((self.read((batch, channels, size), x.dtype, x.device), x), dim=2)
        if lengths is None:
            # A copy: a view would keep the whole text in memory.
            last = joined[..., new:].clone()
        else:
            last_places = lengths[:, None] + torch.arange(size, device=lengths.device)
            last = joined.take_along_dim(last_places[:, None].to(x.device), dim=2)
        self.advance(last, new)
        return joined
