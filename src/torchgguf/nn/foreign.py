"""Layers that another library packed: found by their classes, and left alone by casts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Libraries whose layers and parameters hold packed weights, whatever their dtype: bitsandbytes may store
# 4-bit weights as bytes that are viewed as floats.
_LIBRARIES = ("bitsandbytes",)


def packing_library(layer: nn.Module) -> str | None:
    """Return the library that packed a layer's own parameters, or None if they are plain."""
    parameters = list(layer.parameters(recurse=False))
    for value in (layer, *parameters) if parameters else ():
        if (library := _library(value)) is not None:
            return library
    if all(parameter.is_floating_point() for parameter in parameters):
        return None
    return type(layer).__module__.partition(".")[0]


def _library(value: object) -> str | None:
    """Return the library that a value's class, or one of its bases, comes from."""
    names = (base.__module__.partition(".")[0] for base in type(value).__mro__)
    return next((name for name in names if name in _LIBRARIES), None)


@contextmanager
def kept_as_bytes(module: nn.Module) -> Iterator[None]:
    """View packed parameters with a floating dtype as bytes, which move to devices and ignore casts."""
    # A parameter may be replaced in the block, so it is found again by its layer and name.
    viewed: list[tuple[nn.Module, str, torch.dtype]] = []
    for layer in module.modules():
        for name, value in layer.named_parameters(recurse=False):
            # Until bitsandbytes packs it, which a move does, the parameter holds the plain weights.
            if value.is_floating_point() and _library(value) and getattr(value, "bnb_quantized", False):
                viewed.append((layer, name, value.dtype))
                value.data = value.data.view(torch.uint8)
    try:
        yield
    finally:
        for layer, name, dtype in viewed:
            value = layer.get_parameter(name)
            value.data = value.data.view(dtype)
