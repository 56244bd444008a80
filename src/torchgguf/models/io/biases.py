"""Biases of projections that a GGUF file has, though its architecture has none.

llama.cpp reads and adds them, as far as it creates them, whatever the config of a model states.
"""

from collections import defaultdict
from collections.abc import Container, Iterable

import torch
from torch import nn

from torchgguf.models.core.model import Model
from torchgguf.nn import Linear

_PROJECTIONS = frozenset(
    [
        "output",
        *(f"blk.{{}}.attn_{part}" for part in ("q", "k", "v", "qkv", "output")),
        *(f"blk.{{}}.ffn_{part}" for part in ("gate", "up", "down")),
    ]
)


def add_biases(model: Model, tensors: Container[str]) -> None:
    """Create the biases of projections for which there are tensors, and list them in `model.added_biases`.

    A kind of projection has biases in all layers, or in none: tensors of others are unused.

    Args:
        model: its parameters are on the meta device.
        tensors: names in weight maps.
    """
    lacking = defaultdict[str, list[str]](list)
    for path, layer in model.named_modules():
        if isinstance(layer, Linear) and layer.bias is None:
            row = model.architecture.weights.to_gguf(f"{model.base_name(path)}.bias", model.config)
            if row is not None and row[1].gguf in _PROJECTIONS:
                lacking[row[1].gguf].append(f"{path}.bias")
    for names in lacking.values():
        if all(model.base_name(name) in tensors for name in names):
            create_biases(model, names)
            model.added_biases = (*model.added_biases, *names)


def create_biases(model: Model, names: Iterable[str]) -> None:
    """Create the biases of these names."""
    for name in names:
        layer = model.get_submodule(name.removesuffix(".bias"))
        assert isinstance(layer, Linear)
        layer.bias = nn.Parameter(torch.empty(layer.out_features, device=layer.weight.device))
