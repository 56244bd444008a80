"""Biases of attention and of the head that a GGUF file has, though its architecture has none.

llama.cpp reads and adds them, as far as it creates them, whatever the config of a model states.
"""

from collections.abc import Container

import torch
from torch import nn

from torchgguf.models.core.model import Model
from torchgguf.nn import Linear

_PROJECTIONS = frozenset(["output", *(f"blk.{{}}.attn_{part}" for part in ("q", "k", "v", "qkv", "output"))])


def add_biases(model: Model, tensors: Container[str]) -> None:
    """Create the biases of projections for which there are tensors, and list them in `model.added_biases`.

    Args:
        model: its parameters are on the meta device.
        tensors: names in weight maps.
    """
    added = []
    for path, layer in model.named_modules():
        name = f"{model.base_name(path)}.bias"
        if isinstance(layer, Linear) and layer.bias is None and name in tensors:
            row = model.architecture.weights.to_gguf(name)
            if row is not None and row[1].gguf in _PROJECTIONS:
                layer.bias = nn.Parameter(torch.empty(layer.out_features, device=layer.weight.device))
                added.append(f"{path}.bias")
    model.added_biases = tuple(added)
