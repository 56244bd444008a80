"""`State`: what a layer remembers of the text so far. `Room`: the fixed size that states of a cache share."""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from torchgguf.nn.tracing import is_traced


def writable(tensor: Tensor) -> Tensor:
    """Return a tensor that this mode may write into: a copy, if inference mode made it and is over."""
    if is_traced() or torch.is_inference_mode_enabled() or not tensor.is_inference():
        return tensor
    return tensor.clone()


class Copied:
    """A base whose instances are copied with their tensors, but without the graph of gradients."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy: its tensors are leaves, whatever the mode that made them."""
        memo[id(self)] = new = type(self).__new__(type(self))
        vars(new).update({name: _copied(value, memo) for name, value in vars(self).items()})
        return new


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_copied(each, memo) for each in value)
    if not isinstance(value, Tensor):
        return copy.deepcopy(value, memo)
    if id(value) not in memo:
        memo[id(value)] = value.detach().clone()
    return memo[id(value)]


class Room(Copied):
    """How many positions a cache of a fixed size stores at most, and how many it does store.

    The latter is a tensor: a number in Python would be compiled into a graph. One state counts the positions
    for all: the first one to advance, as it is the first one in every forward.

    Attributes:
        capacity: the highest number of positions.
        filled: the number of positions stored, `()` int64; None before the first forward.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.filled: Tensor | None = None
        self._places: Tensor | None = None  # of the new positions, in the forward that runs

    def make_room(self, new: int, device: torch.device) -> None:
        """Count `new` positions more.

        Raises:
            ValueError: there is no room. (A GPU is not asked; its own index error comes later.)
        """
        filled = torch.zeros((), dtype=torch.long, device=device) if self.filled is None else self.filled
        asked = filled.device.type == "cpu" and not is_traced()
        if asked and (end := int(filled) + new) > self.capacity:
            room = f"max_cache_len={self.capacity}"
            raise ValueError(f"a static cache of {room} has no room for {end} positions")
        self._places = torch.arange(new, device=filled.device) + filled
        if self.filled is None:
            self.filled = filled
        else:
            self.filled = filled = writable(filled)
        filled += new

    def places(self, device: torch.device) -> Tensor:
        """Return where the new positions of this forward belong, `(new,)` int64."""
        assert self._places is not None
        return self._places.to(device)

    def length(self) -> int:
        """Return how many positions are stored; a GPU is waited for."""
        return 0 if self.filled is None else int(self.filled)

    def crop(self, length: int) -> None:
        """Keep at most the first `length` positions."""
        if self.filled is not None:
            self.filled = writable(self.filled).clamp_(max=length)


class State(Copied, ABC):
    """What a layer remembers of the text so far. A class is a kind of state; a layer has one of each at most.

    Args:
        room: what the state shares with all others of a cache of a fixed size, so that its tensors keep their
            shapes and places. None: they grow, or are replaced, and the state counts its positions itself.

    Attributes:
        goes_back: whether the state can be cropped to any length.
    """

    goes_back: ClassVar[bool] = True

    def __init__(self, room: Room | None = None) -> None:
        self.room = room
        self.counts = False  # the positions in the room, for all states
        self._length = 0

    @classmethod
    def make(cls, room: Room | None) -> "State":
        """Make an empty state of this kind; see the class for `room`."""
        return cls(room)

    @property
    def length(self) -> int:
        """The number of positions remembered; in a cache of a fixed size a GPU is waited for."""
        return self._length if self.room is None else self.room.length()

    @property
    def rows(self) -> int:
        """The number of rows of the batch, 0 if nothing is remembered."""
        return 0

    def new_places(self, new: int, device: torch.device) -> Tensor:
        """Return where `new` positions belong in a state of a fixed size, `(new,)` int64.

        Raises:
            ValueError: there is no room.
        """
        room = self.room
        assert room is not None
        if self.counts or room.filled is None:
            room.make_room(new, device)
            self.counts = True
        return room.places(device)

    def fixed(self, room: Room) -> Any:
        """Move what is remembered to tensors that keep shapes and places; return a state that shares them.

        Args:
            room: of the state to return, with a capacity above the present length.

        Raises:
            NotImplementedError: this kind of state has no fixed form.
        """
        raise NotImplementedError(f"{type(self).__name__} states have no fixed form")

    def follow(self, fixed: Any) -> bool:
        """Move what is remembered to the tensors of a state that `fixed` returned, unless it is there.

        Returns:
            Whether that is possible. If not, nothing has changed.
        """
        return False

    def places(self) -> dict[str, Tensor]:
        """Return the tensors of a state of a fixed size, by name."""
        raise NotImplementedError(f"{type(self).__name__} states have no fixed form")

    def count(self, length: int) -> None:
        """Set the number of positions that something else has stored in a state without a room."""
        self._length = length

    @abstractmethod
    def reorder(self, rows: Tensor) -> None:
        """Make row i of the batch a copy of the row `rows[i]`; `rows` is `(rows from now on,)` int64."""

    @abstractmethod
    def can_crop(self, length: int) -> bool:
        """Return whether `crop(length)` is possible."""

    @abstractmethod
    def crop(self, length: int) -> None:
        """Forget all but the first `length` positions; a length beyond the present one changes nothing.

        Every state can be cropped to 0.
        """

    def snapshot(self) -> Tensor | None:
        """Return a copy of what `restore` needs to go back to the present length.

        None: the state can be cropped to any length, and needs no copy.
        """
        return None

    def restore(self, snapshot: Tensor, length: int) -> None:
        """Go back to the length at which a snapshot was made."""
        raise NotImplementedError

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what is remembered, by name, as `fill` reads it."""

    @abstractmethod
    def fill(self, tensors: dict[str, Tensor], length: int) -> None:
        """Remember `length` positions in a state that is empty.

        Args:
            tensors: as `tensors` returns them, from a file that need not be valid.
            length: the number of positions.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor has an invalid shape or type.
        """

    def holds_for(self, length: int) -> bool:
        """Return whether the positions remembered stay valid in a text of this length."""
        return True


def reordered(buffer: Tensor, rows: Tensor, in_place: bool) -> Tensor:
    """Return the rows of a buffer in another order, in the same place if asked and if they are as many."""
    chosen = buffer.index_select(0, rows.to(buffer.device))
    return writable(buffer).copy_(chosen) if in_place and chosen.shape == buffer.shape else chosen


def refuse_graph(*tensors: Tensor) -> None:
    """Refuse to store tensors in place that a gradient is wanted of.

    Raises:
        RuntimeError: a gradient is wanted of what would be overwritten.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise RuntimeError("a static cache holds no graph: use torch.no_grad(), or a DynamicCache")
