"""Key/value caches: one that grows with the text, one of a fixed size that compiled models can write into.

Shape letters: B batch, K key/value heads, T new positions, S positions seen including the new ones,
D head size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ROUND = 256  # positions; capacities are multiples of it, so that short generations grow once


@dataclass(slots=True)
class _Layer:
    """Keys and values `(B, K, capacity, D)` of one layer, the first `length` positions filled.

    The first tensors are kept as they came, so that a prompt scored once is never copied; `owned` says that
    they have been replaced by buffers, which no graph holds, and which may be written into.
    """

    keys: Tensor
    values: Tensor
    length: int
    owned: bool = False

    def append(self, key: Tensor, value: Tensor) -> None:
        end = self.length + key.shape[2]
        if torch.is_grad_enabled():
            # A graph may hold what was returned before, if only for the queries' sake: leave that as it is.
            self.keys = torch.cat((self.keys[:, :, : self.length], key), dim=2)
            self.values = torch.cat((self.values[:, :, : self.length], value), dim=2)
            self.owned = False
        else:
            if end > self.keys.shape[2] or not self.owned:
                self.keys = self._grown(self.keys, end)
                self.values = self._grown(self.values, end)
                self.owned = True
            self.keys[:, :, self.length : end] = key
            self.values[:, :, self.length : end] = value
        self.length = end

    def _grown(self, buffer: Tensor, end: int) -> Tensor:
        # Doubling bounds the copying of n steps by 2n positions.
        capacity = -(-max(end, 2 * buffer.shape[2]) // _ROUND) * _ROUND
        grown = buffer.new_empty((*buffer.shape[:2], capacity, buffer.shape[3]))
        grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown

    def filled(self) -> tuple[Tensor, Tensor]:
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class Cache(ABC):
    """Keys and values of the positions seen so far.

    The model calls `update` once a layer and forward; decode loops hand the same object back in.
    """

    @abstractmethod
    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append keys and values `(B, K, T, D)` to a layer; return what queries are to be compared with."""

    @abstractmethod
    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many positions a layer holds."""

    @abstractmethod
    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i of the batch a copy of the row `beam_idx[i]`, as beams are kept, dropped or repeated."""

    @abstractmethod
    def crop(self, max_length: int) -> None:
        """Forget all but the first `max_length` positions; a negative number forgets that many."""


class DynamicCache(Cache):
    """A cache that grows as needed."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []

    def __len__(self) -> int:
        """Return the number of layers seen."""
        return len(self._layers)

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append keys and values `(B, K, T, D)` to a layer; return all of them, `(B, K, S, D)`.

        What is returned are views, valid until the layer's next update. Layers come in order.
        """
        if layer_idx == len(self._layers):
            self._layers.append(_Layer(key, value, key.shape[2]))
            return key, value
        layer = self._layers[layer_idx]
        layer.append(key, value)
        return layer.filled()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many positions a layer holds."""
        return self._layers[layer_idx].length if layer_idx < len(self._layers) else 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i of the batch a copy of the row `beam_idx[i]`, as beams are kept, dropped or repeated."""
        for layer in self._layers:
            layer.keys = layer.keys.index_select(0, beam_idx.to(layer.keys.device))
            layer.values = layer.values.index_select(0, beam_idx.to(layer.values.device))

    def crop(self, max_length: int) -> None:
        """Forget all but the first `max_length` positions; a negative number forgets that many."""
        for layer in self._layers:
            keep = max_length if max_length >= 0 else layer.length + max_length
            layer.length = max(0, min(layer.length, keep))


class StaticCache(Cache):
    """A cache of a fixed size, whose tensors keep shapes and places: a compiled step serves every token.

    Queries are given all `max_cache_len` positions, of which `attention_masks` hides those not filled yet;
    only the first forward is given just its own. How much is filled is a tensor too, `filled`: a number in
    Python would be compiled in.

    Args:
        config: of the model; it says how many layers there are.
        max_cache_len: how many positions there is room for.
    """

    def __init__(self, config: Any, max_cache_len: int) -> None:
        if max_cache_len < 1:
            raise ValueError(f"max_cache_len must be at least 1, not {max_cache_len}")
        self.max_cache_len = max_cache_len
        self.filled: Tensor | None = None  # (), int64; None before the first forward
        self._last_layer: int = config.num_hidden_layers - 1
        self._keys: list[Tensor] = []  # of each layer, (B, K, max_cache_len, D)
        self._values: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append keys and values `(B, K, T, D)` to a layer; return its buffers, `(B, K, max_cache_len, D)`.

        The first time, `key` and `value` themselves are returned. Layers come in order, and the last one ends
        the forward.

        Raises:
            ValueError: there are other rows than before, or there is no room. (For the latter a GPU is not
                asked; its own index error comes later.)
            RuntimeError: a gradient is wanted of what would be overwritten.
        """
        if torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
            raise RuntimeError("a static cache holds no graph: use torch.no_grad(), or a DynamicCache")
        first = layer_idx == len(self._keys)
        if first:
            self._allocate(key, value)
        assert self.filled is not None
        if layer_idx == 0 and key.device.type == "cpu" and not torch.compiler.is_compiling():
            self._check_room(key.shape[2])
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if len(keys) != len(key):
            raise ValueError(f"a static cache of {len(keys)} rows cannot take {len(key)}: make another")
        new = torch.arange(key.shape[2], device=key.device) + self.filled.to(key.device)
        keys.index_copy_(2, new, key)
        values.index_copy_(2, new, value)
        if layer_idx == self._last_layer:
            self.filled += key.shape[2]
        return (key, value) if first else (keys, values)

    def _allocate(self, key: Tensor, value: Tensor) -> None:
        for buffers, like in ((self._keys, key), (self._values, value)):
            # Zeros, not whatever was there: a NaN would come through the mask, as 0 times NaN.
            buffers.append(like.new_zeros((*like.shape[:2], self.max_cache_len, like.shape[3])))
        if self.filled is None:
            self.filled = torch.zeros((), dtype=torch.long, device=key.device)

    def _check_room(self, new: int) -> None:
        if (end := self.get_seq_length() + new) > self.max_cache_len:
            raise ValueError(
                f"a static cache of max_cache_len={self.max_cache_len} cannot hold {end} positions"
            )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many positions each layer holds; a GPU is waited for."""
        return 0 if self.filled is None else int(self.filled)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i of the batch a copy of the row `beam_idx[i]`; as many rows as before stay in place."""
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):
                rows = buffer.index_select(0, beam_idx.to(buffer.device))
                buffers[layer] = buffer.copy_(rows) if rows.shape == buffer.shape else rows

    def crop(self, max_length: int) -> None:
        """Forget all but the first `max_length` positions; a negative number forgets that many."""
        if self.filled is not None:
            keep = self.filled + max_length if max_length < 0 else self.filled.clamp(max=max_length)
            self.filled.copy_(keep.clamp(min=0))
