"""Caches: one that grows with the text, one of a fixed size that compiled models can write into."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from os import PathLike
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.nn.cache.checkpoints import Checkpoints, Snapshots
from torchgguf.nn.cache.files import read_states, write_states
from torchgguf.nn.cache.kv import KeyValues
from torchgguf.nn.cache.lengths import Lengths
from torchgguf.nn.cache.state import Room, State

Kind = TypeVar("Kind", bound=State)


class Cache(ABC):
    """The states of all layers: what a model remembers of the positions seen so far.

    A layer asks for its states by `state`. A forward advances each state once, layer by layer, all by as many
    positions. Decode loops pass the same cache to every forward.

    Recurrent states forget what they were. If a model has any, `crop` goes back to the lengths of
    `checkpoint`s only.

    Args:
        checkpoint_every: generation makes a checkpoint after each multiple of so many positions of a prompt;
            None: it makes none.
        max_checkpoints: the number of checkpoints to keep at most; each is as large as the recurrent states.

    Raises:
        ValueError: `checkpoint_every` is below 1, or `max_checkpoints` is below 0.
    """

    room: Room | None = None

    def __init__(self, checkpoint_every: int | None = None, max_checkpoints: int = 8) -> None:
        if checkpoint_every is not None and checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
        if max_checkpoints < 0:
            raise ValueError(f"max_checkpoints must be at least 0, got {max_checkpoints}")
        self.layers: list[dict[type[State], State]] = []
        self.checkpoint_every = checkpoint_every
        self._checkpoints = Checkpoints(max_checkpoints)

    def __len__(self) -> int:
        """Return the number of layers seen."""
        return len(self.layers)

    def state(self, layer_idx: int, kind: type[Kind]) -> Kind:
        """Return a layer's state of a kind, which is made when it is first asked for.

        Args:
            layer_idx: the layer.
            kind: the class of the state: `KeyValues`, `Recurrent`, `Convolution` or another `State`.
        """
        layers = self.layers
        while layer_idx >= len(layers):
            layers.append({})
        states = layers[layer_idx]
        if kind not in states:
            states[kind] = kind.make(self.room)
        return states[kind]  # type: ignore[return-value]  # each is under its own kind

    def states(self) -> Iterator[tuple[int, State]]:
        """Iterate over all states, each with the number of its layer."""
        return ((i, state) for i, states in enumerate(self.layers) for state in states.values())

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, lengths: Lengths | None = None
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values `(B, K, T, D)` to a layer's `KeyValues`; see its `append`."""
        return self.state(layer_idx, KeyValues).append(key, value, lengths)

    @property
    def capacity(self) -> int | None:
        """The number of positions that there is room for; None: as many as come."""
        return None if self.room is None else self.room.capacity

    @property
    @abstractmethod
    def known_length(self) -> int | None:
        """The number of positions stored, if Python knows it: None, if only a tensor does."""

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        """Return how many positions are stored; of a fixed size, a GPU is waited for.

        Args:
            layer_idx: the layer to ask; by default the first one that stores anything.
        """
        layers = self.layers if layer_idx is None else self.layers[layer_idx : layer_idx + 1]
        return next((state.length for states in layers for state in states.values()), 0)

    def positions(self, new: int, device: torch.device) -> Tensor:
        """Return the positions `(new,)` int64 that come after those stored."""
        past = self.get_seq_length()
        return torch.arange(past, past + new, device=device)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i of the batch a copy of the row `beam_idx[i]`, as beams are kept, dropped or repeated."""
        for _, state in self.states():
            state.reorder(beam_idx)
        self._checkpoints.reorder(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch, as `reorder_cache` does."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch so many times."""
        self.reorder_cache(torch.arange(self.batch_size).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget all positions."""
        self.crop(0)

    def get_max_length(self) -> int:
        """Return `capacity`, or -1 if there is room for as many positions as come."""
        return -1 if self.capacity is None else self.capacity

    @property
    def batch_size(self) -> int:
        """The number of rows of the batch, 0 if nothing is stored."""
        return max((state.rows for _, state in self.states()), default=0)

    @property
    def is_initialized(self) -> bool:
        """Whether anything is stored."""
        return self.get_seq_length() > 0

    @property
    def is_compileable(self) -> bool:
        """Whether tensors keep shapes and places, so that a compiled step serves every token."""
        return self.room is not None

    def holds_for(self, length: int) -> bool:
        """Return whether all that is stored stays valid in a text of this length, without padding.

        If not, the text must be read anew: after `crop(0)`, which is always possible.
        """
        return all(state.holds_for(length) for _, state in self.states())

    @property
    def forgets(self) -> bool:
        """Whether there are states that `crop` takes back to checkpoints only."""
        return not all(state.goes_back for _, state in self.states())

    def checkpoint(self) -> None:
        """Keep copies of the states that cannot be cropped, so that `crop` can go back to this length.

        Of keys and values there are no copies. The oldest checkpoint is dropped if there are too many.
        """
        if snapshots := self.snapshot():
            self._checkpoints.add(self.get_seq_length(), snapshots)

    def snapshot(self) -> Snapshots:
        """Return copies of the states that cannot be cropped, for `restore`; checkpoints stay as they are."""
        states = ((key, state.snapshot()) for key, state in self._by_place())
        return {key: copy for key, copy in states if copy is not None}

    def restore(self, snapshots: Snapshots, length: int) -> None:
        """Go back to a length.

        Args:
            snapshots: what `snapshot` returned at this length.
            length: the number of positions stored then.
        """
        # Decided before anything changes: states of a fixed size share their length.
        restored = {place for place, state in self._by_place() if not state.can_crop(length)}
        for place, state in self._by_place():
            if place in restored:
                state.restore(snapshots[place], length)
            else:
                state.crop(length)
        self._checkpoints.crop(length)

    def can_crop(self, max_length: int) -> bool:
        """Return whether `crop(max_length)` is possible."""
        return self.crop_point(max_length) == self._length_left(max_length)

    def crop_point(self, max_length: int) -> int:
        """Return the highest length up to `max_length` that `crop` can go back to; 0 always is one."""
        length = self._length_left(max_length)
        if all(state.can_crop(length) for _, state in self.states()):
            return length
        return max((kept for kept in self._checkpoints.lengths if kept <= length), default=0)

    def crop(self, max_length: int) -> None:
        """Forget all but the first `max_length` positions; a negative number forgets that many.

        Raises:
            ValueError: that is impossible for a state. The message names it, and nothing is changed.
        """
        length = self._length_left(max_length)
        snapshots = self._checkpoints.at(length)
        for (i, kind), state in self._by_place():
            if (i, kind) not in snapshots and not state.can_crop(length):
                points = sorted({0, state.length, *self._checkpoints.lengths})
                possible = ", ".join(map(str, points[:-1]))
                raise ValueError(
                    f"the {kind.__name__} state of layer {i} must be cropped to {possible} or to "
                    f"{points[-1]}, got {length}"
                )
        self.restore(snapshots, length)

    def save(self, path: str | PathLike[str]) -> None:
        """Write all states to a file, from which `load` restores them. Checkpoints are not in it.

        Raises:
            ValueError: nothing is stored, or a state has no form in files.
            OSError: the system refuses.
        """
        write_states(self._by_place(), self.get_seq_length(), path)

    def load(self, path: str | PathLike[str], device: torch.device | str = "cpu") -> Self:
        """Read the states that `save` wrote into this cache, which must be new.

        Args:
            path: the file.
            device: the device of the model.

        Returns:
            This cache.

        Raises:
            GGUFError: the file is broken, or is not that of a cache.
            ValueError: the cache was used already, or has no room for so many positions.
            OSError: the system refuses.
        """
        if self.layers:
            raise ValueError("a cache must be new to load a file: this one was used already")
        length, stored = read_states(path, device)
        if self.capacity is not None and length > self.capacity:
            room = f"max_cache_len={self.capacity}"
            raise ValueError(f"a static cache of {room} has no room for the {length} positions of {path}")
        for (i, kind), tensors in stored.items():
            try:
                self.state(i, kind).fill(tensors, length)
            except (KeyError, ValueError) as error:
                self.layers.clear()
                self.room = None if self.room is None else Room(self.room.capacity)
                raise GGUFError(
                    f"{path}: the {kind.__name__} state of layer {i} is broken: {error}"
                ) from None
        return self

    def _by_place(self) -> Iterator[tuple[tuple[int, type[State]], State]]:
        places = enumerate(self.layers)
        return (((i, kind), state) for i, states in places for kind, state in states.items())

    def _length_left(self, max_length: int) -> int:
        return max_length if max_length >= 0 else max(0, self.get_seq_length() + max_length)


class DynamicCache(Cache):
    """A cache that grows as needed."""

    @property
    def known_length(self) -> int:
        """The number of positions stored."""
        return self.get_seq_length()


class StaticCache(Cache):
    """A cache of a fixed size, whose tensors keep shapes and places: a compiled step serves every token.

    Queries are compared with all `max_cache_len` positions, of which `attention_masks` hides those not filled
    yet; only the first forward compares its own. How much is filled is a tensor: a number in Python would be
    compiled in.

    Args:
        config: of the model, as in transformers. Its layers are known when they ask for their states.
        max_cache_len: the number of positions that there is room for.
        checkpoint_every: see `Cache`.
        max_checkpoints: the number of checkpoints to keep at most.

    Raises:
        ValueError: `max_cache_len` is below 1.
    """

    room: Room

    def __init__(
        self, config: Any, max_cache_len: int, checkpoint_every: int | None = None, max_checkpoints: int = 8
    ) -> None:
        if max_cache_len < 1:
            raise ValueError(f"max_cache_len must be at least 1, got {max_cache_len}")
        super().__init__(checkpoint_every, max_checkpoints)
        self.room = Room(max_cache_len)

    @property
    def max_cache_len(self) -> int:
        """The number of positions that there is room for."""
        return self.room.capacity

    @property
    def known_length(self) -> int | None:
        """0 before the first forward, then None."""
        return 0 if self.room.filled is None else None

    def positions(self, new: int, device: torch.device) -> Tensor:
        """Return the positions `(new,)` int64 that come after those stored; no device is waited for."""
        places = torch.arange(new, device=device)
        return places if self.room.filled is None else places + self.room.filled.to(device)
