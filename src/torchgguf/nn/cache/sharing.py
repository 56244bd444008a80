"""A cache whose states keep their places: what a recorded step reads and writes."""

from __future__ import annotations

import torch
from torch import Tensor

from torchgguf.nn.cache.cache import Cache, StaticCache
from torchgguf.nn.cache.state import Room

# The number of a layer, the kind of its state and the name of the tensor there.
PlaceName = tuple[int, str, str]


class FixedPlaces:
    """The states of a cache, moved to tensors that keep their places.

    A cache that grows goes on to work as ever, and shares these tensors with a cache of a fixed size. If it
    leaves them, as when it grows or is reordered, `follow` brings it back.

    Args:
        cache: it contains at least one position. One of a fixed size has such places already.
        capacity: the number of positions that there will be room for.

    Attributes:
        capacity: the number of positions that there is room for.
        tensors: by name; `filled` is the number of positions stored.
        names: of the tensors.

    Raises:
        NotImplementedError: a state has no fixed form.
    """

    def __init__(self, cache: Cache, capacity: int) -> None:
        self.grows = cache.room is None
        self._room = cache.room or Room(capacity)
        self.capacity = self._room.capacity
        if self._room.filled is None:
            self._room.filled = torch.tensor(cache.get_seq_length())
        self._filled = self._room.filled
        self._names = [(i, type(state)) for i, state in cache.states()]
        self._kinds = [[*states] for states in cache.layers]
        self._states = [state for _, state in cache.states()]
        self._twins = [s.fixed(self._room) for s in self._states] if self.grows else self._states
        if self.grows:
            self._twins[0].counts = True
        self.tensors = self._tensors()

    def _tensors(self) -> dict[PlaceName, Tensor]:
        found: dict[PlaceName, Tensor] = {(-1, "", "filled"): self._filled}
        for (i, kind), twin in zip(self._names, self._twins, strict=True):
            found.update(((i, kind.__name__, name), tensor) for name, tensor in twin.places().items())
        return found

    def belongs_to(self, cache: Cache) -> bool:
        """Return whether these are the states of a cache still."""
        if self.grows != (cache.room is None) or (not self.grows and cache.room is not self._room):
            return False
        now = [state for _, state in cache.states()]
        return len(now) == len(self._states) and all(
            one is two for one, two in zip(now, self._states, strict=True)
        )

    def twin(self, cache: Cache) -> StaticCache:
        """Return the cache of a fixed size to record a step with."""
        if isinstance(cache, StaticCache):
            return cache
        twin = StaticCache(None, self.capacity)
        twin.room = self._room
        states = iter(self._twins)
        twin.layers = [{kind: next(states) for kind in kinds} for kinds in self._kinds]
        return twin

    def follow(self, length: int) -> bool:
        """Bring states that have left these places back, and take note of their length.

        Returns:
            Whether that is possible, with room for one position more.
        """
        if length >= self.capacity:
            return False
        if self.grows:
            for state, twin in zip(self._states, self._twins, strict=True):
                if not state.follow(twin):
                    return False
            self._filled.fill_(length)
            return True
        return self._room.filled is self._filled and all(
            one is two for one, two in zip(self._tensors().values(), self.tensors.values(), strict=True)
        )

    def advance(self, length: int) -> None:
        """Let a cache that grows know how many positions are stored."""
        if self.grows:
            for state in self._states:
                state.count(length)

    def snapshot(self) -> list[Tensor]:
        """Return copies of what the next step will overwrite, for `restore`."""
        return [tensor.clone() for tensor in self._forgetful()]

    def restore(self, snapshot: list[Tensor]) -> None:
        """Go back to where `snapshot` was called, one step ago at most."""
        for tensor, copy in zip(self._forgetful(), snapshot, strict=True):
            tensor.copy_(copy)

    def _forgetful(self) -> list[Tensor]:
        """Return the tensors whose values a step overwrites: of keys and values it only adds to what is."""
        kept = ("keys", "values")
        return [tensor for (_, _, name), tensor in self.tensors.items() if name not in kept]


def capacity_for(length: int, most: int) -> int:
    """Return how many positions to make room for.

    Args:
        length: the number of positions stored.
        most: the highest number that is expected; if it is far, room for that is made later.
    """
    capacity, wanted = 256, min(most, 2 * length + 512)
    while capacity < max(wanted, length + 1):
        capacity *= 2
    return capacity
