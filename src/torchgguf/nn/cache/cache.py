"""Caches: one that grows with the text, one of a fixed size that compiled models can write into."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from torchgguf.nn.cache.kv import KeyValues
from torchgguf.nn.cache.lengths import Lengths
from torchgguf.nn.cache.state import Room, State

Kind = TypeVar("Kind", bound=State)


class Cache(ABC):
    """The states of all layers: what a model remembers of the positions seen so far.

    A layer asks for its states by `state`. A forward advances each state once, layer by layer, all by as many
    positions. Decode loops pass the same cache to every forward.
    """

    room: Room | None = None

    def __init__(self) -> None:
        self.layers: list[dict[type[State], State]] = []

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

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch, as `reorder_cache` does."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch so many times."""
        for _, state in self.states():
            state.reorder(torch.arange(state.rows).repeat_interleave(repeats))

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

    def can_crop(self, max_length: int) -> bool:
        """Return whether `crop(max_length)` is possible."""
        length = self._length_left(max_length)
        return all(state.can_crop(length) for _, state in self.states())

    def crop(self, max_length: int) -> None:
        """Forget all but the first `max_length` positions; a negative number forgets that many.

        Raises:
            ValueError: that is impossible for a state. The message names it, and nothing is changed.
        """
        length = self._length_left(max_length)
        for i, state in self.states():
            if not state.can_crop(length):
                kind = type(state).__name__
                raise ValueError(
                    f"the {kind} state of layer {i} must be cropped to 0 or to {state.length}, got {length}"
                )
        for _, state in self.states():
            state.crop(length)

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

    Raises:
        ValueError: `max_cache_len` is below 1.
    """

    room: Room

    def __init__(self, config: Any, max_cache_len: int) -> None:
        if max_cache_len < 1:
            raise ValueError(f"max_cache_len must be at least 1, got {max_cache_len}")
        super().__init__()
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
