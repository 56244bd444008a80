"""Key/value caches."""

from dataclasses import dataclass

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


class DynamicCache:
    """Keys and values of the positions seen so far, growing as needed.

    The model calls `update` once a layer and forward; decode loops hand the same object back in.
    """

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
