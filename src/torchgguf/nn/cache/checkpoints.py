"""Checkpoints of a cache: positions that it goes back to although a state forgets what it was."""

from torch import Tensor

from torchgguf.nn.cache.state import Copied, State

# By layer and kind of state: the copies of those that cannot go back by themselves.
Snapshots = dict[tuple[int, type[State]], Tensor]


class Checkpoints(Copied):
    """Copies of states at some lengths of the text, the latest `limit` ones.

    Args:
        limit: the number of checkpoints to keep at most; the oldest is dropped first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: dict[int, Snapshots] = {}
        # The rows of the batch now, by their places in the copies: beams reorder them at every step.
        self._rows: dict[int, Tensor] = {}

    @property
    def lengths(self) -> list[int]:
        """The lengths with a checkpoint, in their order."""
        return sorted(self._kept)

    def add(self, length: int, snapshots: Snapshots) -> None:
        """Keep the copies of all states at a length."""
        self._drop(length)
        self._kept[length] = snapshots
        while len(self._kept) > self.limit:
            self._drop(next(iter(self._kept)))

    def at(self, length: int) -> Snapshots:
        """Return the copies at a length; there are none without a checkpoint."""
        snapshots = self._kept.get(length, {})
        rows = self._rows.get(length)
        if rows is None:
            return snapshots
        return {place: copy.index_select(0, rows.to(copy.device)) for place, copy in snapshots.items()}

    def crop(self, length: int) -> None:
        """Drop those beyond a length."""
        for kept in self.lengths:
            if kept > length:
                self._drop(kept)

    def reorder(self, rows: Tensor) -> None:
        """Make row i of the batch a copy of the row `rows[i]`."""
        for length in self._kept:
            known = self._rows.get(length)
            self._rows[length] = rows if known is None else known[rows.to(known.device)]

    def _drop(self, length: int) -> None:
        self._kept.pop(length, None)
        self._rows.pop(length, None)
