"""Packed layers with changed weights: unpack a layer, change the plain one, and pack it again."""

from typing import TypeVar

import torch

from torchgguf.nn.factors import is_factor
from torchgguf.nn.slots import PackedLayer, slots
from torchgguf.packing import pack_changes

AnyPackedLayer = TypeVar("AnyPackedLayer", bound=PackedLayer)


def repacked(layer: AnyPackedLayer, plain: torch.nn.Module) -> AnyPackedLayer:
    """Return a layer with the weights of a plain one, each matrix in its type and with its factors.

    Rows that are the same in both keep their bytes, and parameters that are the same stay shared.

    Args:
        layer: the packed layer, which stays as it is.
        plain: what `layer.dequantize()` returned, in float32, with changed weights.

    Raises:
        ValueError: weights are not finite, or too large for their type.
    """
    new = layer.twin()
    changed = {slot.name: slot.read() for slot in slots(plain)}
    for slot in layer.slots():
        if is_factor(slot.name):
            continue
        old, value = slot.read(), changed[slot.name]
        if slot.quant_type is not None:
            blocks = pack_changes(old, slot.quant_type, value, layer.factor(slot.name))
            if blocks is not old:
                new.pack(slot.name, blocks, slot.quant_type, torch.float32)
        else:
            scale = layer.factor("weight") if getattr(layer, "scales_bias", False) else None
            factor = 1.0 if scale is None else scale.detach()
            if not torch.equal((old * factor).to(value), value):
                new.fill(slot.name, (value / factor).to(old))
    return new
