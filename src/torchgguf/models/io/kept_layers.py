"""Load the tensors of a layer that a model keeps, but does not run, into modules that do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from torch import nn

from torchgguf.container import LazyTensor
from torchgguf.models.core.model import Model
from torchgguf.models.io.assembling import Filling, OpenModel, fill_layer
from torchgguf.models.io.matching import Match
from torchgguf.models.io.places import GGUF_LAYOUT
from torchgguf.models.io.supply import TensorSupply
from torchgguf.nn import PackedLayer
from torchgguf.nn.slots import Slot, slots


def fill_kept(modules: Any, model: Model, layer_idx: int) -> None:
    """Load a kept layer; packed matrices stay packed if the model's do.

    Args:
        modules: on the meta device, by the names of weight maps; their `layer` contains those of a layer.
        model: keeps the tensors.
        layer_idx: the number of the layer.

    Raises:
        ValueError: a tensor is missing, or its shape does not match; the message names it.
    """
    packed = any(isinstance(layer, PackedLayer) for layer in model.modules())
    filling = Filling(model.dtype, keep_blocks=packed, keep_packed=packed, device=model.device)
    supply = cast(TensorSupply, SimpleNamespace(layout=GGUF_LAYOUT))
    tensors = {path: _tensors(path, layer, model, layer_idx) for path, layer in modules.named_modules()}
    for path in tensors:
        fill_layer(OpenModel(modules, supply, Match(tensors, [])), path, filling)


def _tensors(path: str, layer: nn.Module, model: Model, layer_idx: int) -> list[tuple[Slot, LazyTensor]]:
    found = []
    for slot in slots(layer):
        name = f"layers.{layer_idx}.{path.removeprefix('layer.')}.{slot.name}"
        target = model.architecture.weights.to_gguf(name, model.config)
        tensor = None if target is None else model.kept.get(target[0])
        if tensor is None or tensor.shape not in (slot.shape, slot.also):
            wrong = "is missing" if tensor is None else f"has shape {tensor.shape}, expected {slot.shape}"
            raise ValueError(f"the tensor {name} of a block for multi-token prediction {wrong}")
        found.append((slot, tensor))
    return found
