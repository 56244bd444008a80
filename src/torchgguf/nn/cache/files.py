"""Caches in files: the states of all layers as tensors of a GGUF file.

The container is that of models, since its reader trusts no file. A tensor is named by its layer, the kind of
its state and its name there: `layers.3.KeyValues.keys`. Such a file has no tensor without numbers, as the
values of latent attention and the states of kernels of size 1 are: those have a last dimension of 1 there.
"""

from collections.abc import Iterable, Mapping
from os import PathLike

import torch
from torch import Tensor

from torchgguf.container import GGUFError, GGUFFile, open_gguf, write_gguf
from torchgguf.container.errors import brief
from torchgguf.nn.cache.encoded import EncodedKeyValues
from torchgguf.nn.cache.kv import KeyValues
from torchgguf.nn.cache.recurrent import Convolution, Recurrent
from torchgguf.nn.cache.state import State

# The number of a layer and the kind of its state.
Place = tuple[int, type[State]]

_KINDS: dict[str, type[State]] = {
    kind.__name__: kind for kind in (KeyValues, EncodedKeyValues, Recurrent, Convolution)
}
_ARCHITECTURE = "torchgguf.cache"
_LENGTH = f"{_ARCHITECTURE}.length"
_EMPTY = f"{_ARCHITECTURE}.empty"  # the names of tensors whose last dimension is 0, not 1
_MOST_LAYERS = 4096


def write_states(states: Iterable[tuple[Place, State]], length: int, path: str | PathLike[str]) -> None:
    """Write the states of all layers to a file; see `Cache.save`.

    Raises:
        ValueError: nothing is stored, or a state has no form in files.
        OSError: the system refuses.
    """
    if length == 0:
        raise ValueError("an empty cache must not be saved: there is nothing to restore")
    tensors, empty = {}, []
    for (i, kind), state in states:
        if kind.__name__ not in _KINDS:
            raise ValueError(f"the {kind.__name__} state of layer {i} has no form in files")
        for name, tensor in state.tensors().items():
            full_name = f"layers.{i}.{kind.__name__}.{name}"
            if tensor.shape[-1] == 0:
                tensor = tensor.new_zeros((*tensor.shape[:-1], 1))
                empty.append(full_name)
            tensors[full_name] = tensor.detach().cpu().contiguous()
    metadata = {"general.architecture": _ARCHITECTURE, _LENGTH: length}
    write_gguf(path, metadata | ({_EMPTY: empty} if empty else {}), tensors)


def read_states(
    path: str | PathLike[str], device: torch.device | str
) -> tuple[int, Mapping[Place, dict[str, Tensor]]]:
    """Return the number of positions in a file, and copies of the tensors of each state by layer.

    Raises:
        GGUFError: the file is broken, or is not that of a cache.
        OSError: the system refuses.
    """
    with open_gguf(path) as file:
        length = file.metadata.get(_LENGTH)
        if not isinstance(length, int) or length < 1:
            raise GGUFError(f"{path} contains no cache: {_LENGTH} must be a positive number, got {length!r}")
        empty = file.metadata.get(_EMPTY, [])
        if not isinstance(empty, list):
            raise GGUFError(f"{path}: {_EMPTY} must be a list of names, got {brief(empty)}")
        states = {
            place: {name: file[full_name].to(device, copy=True) for name, full_name in names.items()}
            for place, names in _places(file, path).items()
        }
    for (i, kind), tensors in states.items():
        for name, tensor in tensors.items():
            if f"layers.{i}.{kind.__name__}.{name}" in empty:
                tensors[name] = tensor[..., :0]
    return length, states


def _places(file: GGUFFile, path: str | PathLike[str]) -> dict[Place, dict[str, str]]:
    """Return the names of the tensors of each state, in the order of layers."""
    places: dict[Place, dict[str, str]] = {}
    for full_name in file:
        parts = full_name.split(".")
        known = len(parts) == 4 and parts[0] == "layers" and parts[2] in _KINDS
        if not known or not parts[1].isascii() or not parts[1].isdecimal() or int(parts[1]) >= _MOST_LAYERS:
            raise GGUFError(f"{path}: the tensor {full_name!r} belongs to no state of a cache")
        places.setdefault((int(parts[1]), _KINDS[parts[2]]), {})[parts[3]] = full_name
    return {place: places[place] for place in sorted(places, key=lambda place: place[0])}
