"""`Batch`: what goes through the model at a time: samples packed in one row, or padded rows.

Shape letters: B rows, T positions, N tokens that are learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.models.blocks.losses import IGNORED
from torchgguf.training.data import Item, TrainingSample


@dataclass(frozen=True)
class Batch:
    """Samples in the form of the model's inputs.

    Attributes:
        items: whose samples these are.
        input_ids: tokens `(B, T)`.
        labels: `(B, T)`: for each position the token to predict there, or `IGNORED`.
        position_ids: `(B, T)`; each sample starts at 0.
        attention_mask: bool `(1, 1, T, T)` of packed samples, or `(B, T)` with 0 at padding.
        owners: for each token that is learnt, `(N,)`, the number of its sample.
        counts: False if the batch only keeps a process busy while others compute.
    """

    items: tuple[Item, ...]
    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    owners: Tensor
    counts: bool = True

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(len(item.samples) for item in self.items)


def make_batch(items: Sequence[Item], packed: bool, device: torch.device, counts: bool = True) -> Batch:
    """Return a batch of items.

    Args:
        items: one or more.
        packed: whether all samples are in one row, each of which sees itself only.
        device: of the tensors.
        counts: as in `Batch`.
    """
    samples = [sample for item in items for sample in item.samples]
    make = _packed if packed else _padded
    ids, labels, positions, mask, owners = (x.to(device) for x in make(samples))
    return Batch(tuple(items), ids, labels, positions, mask, owners[labels != IGNORED], counts)


def _packed(samples: Sequence[TrainingSample]) -> tuple[Tensor, ...]:
    lengths = torch.tensor([len(sample) for sample in samples])
    owners = torch.arange(len(samples)).repeat_interleave(lengths)
    places = torch.arange(len(owners))
    mask = (owners[:, None] == owners) & (places <= places[:, None])
    ids, labels = (torch.cat(parts)[None] for parts in zip(*map(_tensors, samples), strict=True))
    positions = torch.cat([torch.arange(length) for length in lengths.tolist()])[None]
    return ids, labels, positions, mask[None, None], owners[None]


def _padded(samples: Sequence[TrainingSample]) -> tuple[Tensor, ...]:
    longest = max(map(len, samples))

    def rows(parts: Sequence[Tensor], fill: int) -> Tensor:
        return torch.stack([F.pad(part, (0, longest - len(part)), value=fill) for part in parts])

    pairs = [_tensors(sample) for sample in samples]
    ids, labels = rows([ids for ids, _ in pairs], 0), rows([labels for _, labels in pairs], IGNORED)
    mask = rows([torch.ones_like(ids) for ids, _ in pairs], 0)
    positions = torch.arange(longest).expand_as(ids)
    owners = torch.arange(len(samples))[:, None].expand_as(ids)
    return ids, labels, positions, mask, owners


def _tensors(sample: TrainingSample) -> tuple[Tensor, Tensor]:
    """Return the tokens, and for each position the token after it as far as it is learnt."""
    return torch.tensor(sample.input_ids), torch.tensor((*sample.labels[1:], IGNORED))


def distribute(items: Sequence[Item], capacity: int, packed: bool, shares: int = 1) -> list[list[Item]]:
    """Divide items into groups of similar sizes, each for one batch.

    The longest item comes first, each into the smallest group (worst fit, decreasing).

    Args:
        items: one or more.
        capacity: the largest number of tokens of a group, padding included, unless one item is longer.
        packed: whether samples share a row; otherwise each is as long as the longest one of its group.
        shares: the number of groups is a multiple of it; some may be empty.
    """
    in_order = sorted(items, key=lambda item: -item.length)
    count = max(1, -(-sum(item.length for item in items) // capacity))
    while True:
        count += -count % shares
        groups: list[list[Item]] = [[] for _ in range(count)]
        if all(_put(item, groups, capacity, packed) for item in in_order):
            return groups
        count += 1


def _put(item: Item, groups: list[list[Item]], capacity: int, packed: bool) -> bool:
    """Put an item into the smallest group; return whether it fits."""
    smallest = min(groups, key=lambda group: _size(group, packed))
    smallest.append(item)
    return len(smallest) == 1 or _size(smallest, packed) <= capacity


def _size(group: Sequence[Item], packed: bool) -> int:
    if packed:
        return sum(item.length for item in group)
    samples = [sample for item in group for sample in item.samples]
    return len(samples) * max(map(len, samples), default=0)
