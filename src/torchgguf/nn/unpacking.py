"""Put plain layers in the place of packed ones, in any module."""

from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from torchgguf.nn.slots import PackedLayer

#: Called with a plain layer, the packed one that it replaces, and the name of both.
OnUnpacked = Callable[[nn.Module, PackedLayer, str], Any]


def packed_layers(root: nn.Module, modules: str | Iterable[str] | None = None) -> list[str]:
    """Return the names of the packed layers in some modules.

    Args:
        root: the module that contains the layers.
        modules: names of the modules, or the last parts of their names, with `*` for any text; None: all.

    Raises:
        ValueError: there is no module of such a name.
    """
    packed = [path for path, layer in root.named_modules() if isinstance(layer, PackedLayer)]
    if modules is None:
        return packed
    asked = [modules] if isinstance(modules, str) else [*modules]
    every = [path for path, _ in root.named_modules(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in asked:
        matching = {path for path in every if fnmatchcase(f".{path}", f"*.{pattern}")}
        if not matching:
            raise ValueError(f"{type(root).__name__} has no module {pattern!r}: name one of named_modules()")
        found |= matching
    return [path for path in packed if not found.isdisjoint(containing(path))]


def containing(path: str) -> list[str]:
    """Return the name of a module and those of the modules that contain it, the root left out."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def unpack_layers(
    root: nn.Module, paths: Collection[str], dtype: torch.dtype, on_unpacked: OnUnpacked | None = None
) -> None:
    """Replace packed layers by plain, trainable ones. Layers that share blocks share the plain weights.

    Args:
        root: the module that contains the layers.
        paths: their names. A layer that shares its blocks with one of them is replaced, too.
        dtype: of the plain weights.
        on_unpacked: is called after each layer is unpacked, but not for those that share its weights.
    """
    layers = {path: layer for path, layer in root.named_modules() if isinstance(layer, PackedLayer)}
    asked = {id(blocks) for path in paths for blocks in layers[path].parameters()}
    unpacked: dict[int, nn.Parameter] = {}  # plain weights by the blocks that they were in
    for path, layer in layers.items():
        blocks = getattr(layer, "weight", None)
        if path not in paths and (blocks is None or id(blocks) not in asked):
            continue
        if id(blocks) in unpacked:
            plain: Any = outline(layer)
            plain.weight = unpacked[id(blocks)]
        else:
            plain = layer.dequantize(dtype)
            if on_unpacked is not None:
                on_unpacked(plain, layer, path)
            if blocks is not None:
                unpacked[id(blocks)] = plain.weight
        root.set_submodule(path, plain)


def outline(layer: PackedLayer) -> nn.Module:
    """Return the plain form of a layer without its weights, on the meta device."""
    return layer.twin().to("meta").dequantize()
