"""Caches in files: the states of all layers as tensors of a GGUF file.

The container is that of models, since its reader trusts no file. A tensor is named by its layer, the kind of
its state and its name there: `layers.3.KeyValues.keys`.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchgguf.container import GGUFError, GGUFFile, open_gguf, write_gguf
from torchgguf.nn.cache.kv import KeyValues
from torchgguf.nn.cache.recurrent import Convolution, Recurrent
from torchgguf.nn.cache.state import State

if TYPE_CHECKING:
    from torchgguf.nn.cache.cache import Cache

_KINDS: dict[str, type[State]] = {kind.__name__: kind for kind in (KeyValues, Recurrent, Convolution)}
_ARCHITECTURE = "torchgguf.cache"
_LENGTH = f"{_ARCHITECTURE}.length"
_MOST_LAYERS = 4096


def write_cache(cache: Cache, path: str | PathLike[str]) -> None:
    """Write what `Cache.save` documents."""
    length = cache.get_seq_length()
    if length == 0:
        raise ValueError("an empty cache must not be saved: there is nothing to restore")
    tensors = {}
    for i, kind, state in _named_states(cache):
        for name, tensor in state.tensors().items():
            tensors[f"layers.{i}.{kind}.{name}"] = tensor.detach().cpu().contiguous()
    write_gguf(path, {"general.architecture": _ARCHITECTURE, _LENGTH: length}, tensors)


def _named_states(cache: Cache) -> Iterator[tuple[int, str, State]]:
    for i, states in enumerate(cache.layers):
        for kind, state in states.items():
            if kind.__name__ not in _KINDS:
                raise ValueError(f"the {kind.__name__} state of layer {i} has no form in files")
            yield i, kind.__name__, state


def read_cache(cache: Cache, path: str | PathLike[str], device: torch.device | str) -> None:
    """Read what `Cache.load` documents."""
    if len(cache):
        raise ValueError("a cache must be new to load a file: this one was used already")
    with open_gguf(path) as file:
        length = file.metadata.get(_LENGTH)
        if not isinstance(length, int) or length < 1:
            raise GGUFError(f"{path} contains no cache: {_LENGTH} must be a positive number, got {length!r}")
        if cache.capacity is not None and length > cache.capacity:
            room = f"max_cache_len={cache.capacity}"
            raise ValueError(f"a static cache of {room} has no room for the {length} positions of {path}")
        states = _read_states(file, path)
        for (i, kind), tensors in states.items():
            on_device = {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
            try:
                cache.state(i, kind).fill(on_device, length)
            except (KeyError, ValueError, RuntimeError, IndexError) as error:
                cache.layers.clear()
                raise GGUFError(
                    f"{path}: the {kind.__name__} state of layer {i} is broken: {error}"
                ) from None


def _read_states(
    file: GGUFFile, path: str | PathLike[str]
) -> dict[tuple[int, type[State]], dict[str, Tensor]]:
    """Return the tensors of each state, in the order of layers."""
    states: dict[tuple[int, type[State]], dict[str, Tensor]] = {}
    for full_name in file:
        parts = full_name.split(".")
        known = len(parts) == 4 and parts[0] == "layers" and parts[2] in _KINDS
        if not known or not parts[1].isascii() or not parts[1].isdecimal() or int(parts[1]) >= _MOST_LAYERS:
            raise GGUFError(f"{path}: the tensor {full_name!r} belongs to no state of a cache")
        states.setdefault((int(parts[1]), _KINDS[parts[2]]), {})[parts[3]] = file[full_name]
    return {key: states[key] for key in sorted(states, key=lambda key: key[0])}
