"""Keys and values of attention: a state that grows with the text, and one of a fixed size.

Shape letters: B batch, K key/value heads, T new positions, S positions seen including the new ones,
D head size.
"""

import torch
from torch import Tensor

from torchgguf.nn.cache.lengths import (
    ALL_LENGTHS,
    Lengths,
    common_lengths,
    is_within,
    limits_in_tensor,
    limits_of_tensor,
)
from torchgguf.nn.cache.state import Room, State, refuse_graph, reordered, writable
from torchgguf.nn.tracing import is_traced

_ROUND = 256  # positions; capacities are multiples of it, so that short generations grow once


class KeyValues(State):
    """Keys and values `(B, K, capacity, D)` of one layer, the first `length` positions filled.

    The first tensors are stored as they came, so that a prompt scored once is never copied. Later they are
    replaced by buffers that no graph holds, and that new positions are written into.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    lengths: Lengths | None = None  # of texts, for which the keys are valid; None: all
    _owned = False  # whether the tensors are such buffers

    @classmethod
    def make(cls, room: Room | None) -> "KeyValues":
        """Make an empty state: a `FixedKeyValues`, if there is a `room`."""
        return cls() if room is None else FixedKeyValues(room)

    @property
    def rows(self) -> int:
        """The number of rows of the batch, 0 if nothing is remembered."""
        return 0 if self.keys is None else len(self.keys)

    def append(self, key: Tensor, value: Tensor, lengths: Lengths | None = None) -> tuple[Tensor, Tensor]:
        """Append keys and values; return what queries are to be compared with.

        Args:
            key: `(B, K, T, D)`.
            value: `(B, K, T, D)`; its D may differ from that of keys.
            lengths: the lowest and the highest length of a text in which these keys are valid.

        Returns:
            All keys and values so far, `(B, K, S, D)`: views, valid until the next `append`.
        """
        self.lengths = common_lengths(self.lengths, lengths)
        if self.keys is None or self.values is None:
            self.keys, self.values, self._length = key, value, key.shape[2]
            return key, value
        length, end = self._length, self._length + key.shape[2]
        if torch.is_grad_enabled():
            # A graph may hold what was returned before, if only for the queries' sake: leave that as it is.
            self.keys = torch.cat((self.keys[:, :, :length], key), dim=2)
            self.values = torch.cat((self.values[:, :, :length], value), dim=2)
            self._owned = False
        else:
            # What inference mode made is written into in that mode only. A compiled graph cannot ask.
            foreign = not is_traced() and self.keys.is_inference() and not torch.is_inference_mode_enabled()
            if end > self.keys.shape[2] or not self._owned or foreign:
                self.keys, self.values = _grown(self.keys, length, end), _grown(self.values, length, end)
                self._owned = True
            self.keys[:, :, length:end] = key
            self.values[:, :, length:end] = value
        self._length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def fixed(self, room: Room) -> "FixedKeyValues":
        """Move keys and values to buffers that keep their places; return a state that shares them."""
        assert self.keys is not None
        assert self.values is not None
        twin = FixedKeyValues(room)
        twin.keys, twin.values = (
            x.new_zeros((*x.shape[:2], room.capacity, x.shape[3])) for x in (self.keys, self.values)
        )
        if self.lengths is not None:
            twin.bounds = torch.zeros((), dtype=torch.long), torch.zeros((), dtype=torch.long)
        self.follow(twin)
        return twin

    def follow(self, fixed: "FixedKeyValues") -> bool:
        """Move what is remembered to the buffers of a state, unless it is there; see `State.follow`."""
        keys, values, length = self.keys, self.values, self._length
        if keys is not fixed.keys:
            assert keys is not None
            assert values is not None
            assert fixed.keys is not None
            assert fixed.values is not None
            if length >= fixed.keys.shape[2] or keys[:, :, :0].shape != fixed.keys[:, :, :0].shape:
                return False
            fixed.keys[:, :, :length] = keys[:, :, :length]
            fixed.values[:, :, :length] = values[:, :, :length]
            self.keys, self.values, self._owned = fixed.keys, fixed.values, True
        if self.lengths is not fixed.bounds:
            if fixed.bounds is None:
                return False
            for bound, new, all_ in zip(fixed.bounds, self.lengths or ALL_LENGTHS, ALL_LENGTHS, strict=True):
                bound.fill_(all_ if new is None else int(new))
            self.lengths = fixed.bounds
        return True

    def places(self) -> dict[str, Tensor]:
        """Return keys and values."""
        assert self.keys is not None
        assert self.values is not None
        return {"keys": self.keys, "values": self.values}

    def reorder(self, rows: Tensor) -> None:
        """Make row i of the batch a copy of the row `rows[i]`; as many rows of a fixed size stay in place."""
        if self.keys is not None and self.values is not None:
            in_place = self.room is not None
            self.keys, self.values = (reordered(x, rows, in_place) for x in (self.keys, self.values))

    def can_crop(self, length: int) -> bool:
        """Return True: keys and values of the first positions do not depend on those after them."""
        return True

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        if length == 0:
            self.lengths = None
        if self.room is not None:
            self.room.crop(length)
        elif length == 0:
            self.keys, self.values, self._length = None, None, 0
        else:
            self._length = min(self._length, length)

    def holds_for(self, length: int) -> bool:
        """Return whether the keys are valid in a text of this length."""
        return is_within(length, self.lengths)

    def tensors(self) -> dict[str, Tensor]:
        """Return keys and values `(B, K, S, D)`, and `lengths` `(2,)` int64 if they are limited.

        Keys beside which nothing is stored, as values are a part of them, are called `latents`: a file has
        no empty tensors.
        """
        if self.keys is None or self.values is None:
            return {}
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        found = {"keys": keys, "values": values} if values.shape[-1] else {"latents": keys}
        return found | limits_in_tensor(self._limits())

    def _limits(self) -> Lengths | None:
        return self.lengths

    def fill(self, tensors: dict[str, Tensor], length: int) -> None:
        """Remember `length` positions in a state that is empty."""
        latents = tensors.get("latents")
        keys, values = (
            (tensors["keys"], tensors["values"]) if latents is None else (latents, latents[..., :0])
        )
        for x in (keys, values):
            if x.dim() != 4 or x.shape[:3] != (*keys.shape[:2], length) or not x.is_floating_point():
                expected = f"floating point of shape (rows, heads, {length}, size)"
                raise ValueError(f"keys and values must be {expected}, got {x.dtype} of {tuple(x.shape)}")
        self.append(keys, values, limits_of_tensor(tensors.get("lengths")))


def _grown(buffer: Tensor, length: int, end: int) -> Tensor:
    # Doubling bounds the copying of n steps by 2n positions.
    capacity = -(-max(end, 2 * buffer.shape[2]) // _ROUND) * _ROUND
    grown = buffer.new_empty((*buffer.shape[:2], capacity, buffer.shape[3]))
    grown[:, :, :length] = buffer[:, :, :length]
    return grown


class FixedKeyValues(KeyValues):
    """Keys and values that keep shape and place, so that a compiled step serves every token."""

    bounds: tuple[Tensor, Tensor] | None = None  # `lengths` in tensors `()` int64, which keep their place too

    def append(self, key: Tensor, value: Tensor, lengths: Lengths | None = None) -> tuple[Tensor, Tensor]:
        """Append keys and values; return what queries are to be compared with.

        Args:
            key: `(B, K, T, D)`.
            value: `(B, K, T, D)`.
            lengths: as in `KeyValues.append`.

        Returns:
            The buffers `(B, K, capacity, D)`, of which masks hide what is not filled; the first time just
            `key` and `value`.

        Raises:
            ValueError: there are other rows than before, or there is no room.
            RuntimeError: a gradient is wanted of what would be overwritten.
        """
        assert self.room is not None
        refuse_graph(key, value)
        is_first = self.keys is None
        if self.keys is not None and len(self.keys) != len(key):
            raise ValueError(
                f"a static cache of {len(self.keys)} rows must be used with as many, got {len(key)}"
            )
        places = self.new_places(key.shape[2], key.device)  # if there is no room, nothing has changed
        if self.keys is None or self.values is None:
            # Zeros, not whatever was there: a NaN would come through the mask, as 0 times NaN.
            self.keys, self.values = (
                x.new_zeros((*x.shape[:2], self.room.capacity, x.shape[3])) for x in (key, value)
            )
        self.keys, self.values = writable(self.keys), writable(self.values)
        if lengths is not None:
            self._narrow(lengths, key.device)
        self.keys.index_copy_(2, places, key)
        self.values.index_copy_(2, places, value)
        return (key, value) if is_first else (self.keys, self.values)

    def places(self) -> dict[str, Tensor]:
        """Return keys, values and, if there are any, the bounds of lengths."""
        found = super().places()
        return found if self.bounds is None else found | dict(zip(("low", "high"), self.bounds, strict=True))

    def _narrow(self, lengths: Lengths, device: torch.device) -> None:
        if self.bounds is None:
            lowest = torch.zeros((), dtype=torch.long, device=device)
            self.bounds = lowest, torch.full_like(lowest, ALL_LENGTHS[1])
        self.bounds = writable(self.bounds[0]), writable(self.bounds[1])
        for bound, new, tighter in zip(self.bounds, lengths, (torch.maximum, torch.minimum), strict=True):
            if new is not None:
                bound.copy_(tighter(bound, torch.as_tensor(new, device=device)))

    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        super().crop(length)
        if length == 0 and self.bounds is not None:
            self.bounds = writable(self.bounds[0]), writable(self.bounds[1])
            for bound, unlimited in zip(self.bounds, ALL_LENGTHS, strict=True):
                bound.fill_(unlimited)

    def holds_for(self, length: int) -> bool:
        """Return whether the keys are valid in a text of this length; a GPU is waited for."""
        return is_within(length, self.bounds)

    def _limits(self) -> Lengths | None:
        return self.bounds
