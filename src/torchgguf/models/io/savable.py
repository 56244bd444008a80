"""Refuse what would not load: models before anything is written, and weights that another library packed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from torchgguf.container.errors import brief
from torchgguf.models.core.model import Model
from torchgguf.models.io.biases import create_biases
from torchgguf.models.io.checkpoint import CheckpointError, list_names
from torchgguf.models.io.places import tensor_places
from torchgguf.nn import PackedLayer
from torchgguf.nn.factors import is_factor
from torchgguf.nn.foreign import packing_library
from torchgguf.nn.slots import slots

AnySavable = TypeVar("AnySavable", bound=Model)


def refuse_packed(values: Mapping[str, Any], place: object, supported: Sequence[str] = ()) -> None:
    """Refuse the config of a checkpoint with packed weights.

    Args:
        values: of the config.
        place: names the checkpoint in the error.
        supported: methods of quantization that are not refused.

    Raises:
        CheckpointError: the config names a method of quantization.
    """
    if stated := values.get("quantization_config"):
        method = stated.get("quant_method", stated) if isinstance(stated, Mapping) else stated
        if method in supported:
            return
        method = method if isinstance(method, str) and method.isprintable() else brief(method)
        raise CheckpointError(
            f"{place} is quantized by {method}, which is unsupported: load the checkpoint that it was made "
            "from (quantization_config= packs that), or a GGUF file"
        )


def check_savable(model: AnySavable) -> AnySavable:
    """Refuse a model that loading would refuse.

    That are weights that another library packed, as floats too: only that library reads them. And that is a
    model whose layers are not those that its config describes.

    Args:
        model: its parameters may be on the meta device.

    Returns:
        The model that the config describes, on the meta device. All its layers are plain.

    Raises:
        ValueError: there is such a layer; the message names it, and the library or the shapes.
    """
    for path, layer in model.named_modules():
        if any(base.__module__.partition(".")[0] == "peft" for base in type(layer).__mro__):
            raise ValueError(
                f"{path} is an adapter of PEFT: save the model that merge_and_unload() of the PeftModel "
                "returns, or the adapters alone, by save_pretrained() of the PeftModel"
            )
        if isinstance(layer, PackedLayer) or (library := packing_library(layer)) is None:
            continue
        raise ValueError(
            f"{path} is packed by {library}, and saving that is unsupported: load the checkpoint without it"
        )
    try:
        with torch.device("meta"):
            described = type(model)(model.config)
            create_biases(described, model.added_biases)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"model.config describes an invalid model, which would not load: {reason}") from None
    if problems := list(_differences(model, described)):
        raise ValueError(
            f"{type(model).__name__} is not what its config describes, and would not load again: "
            f"{list_names(problems, shown=3)}; change model.config to match the layers, or the layers"
        )
    return described


def _differences(model: Model, described: Model) -> Iterator[str]:
    """List how a model differs from the one that its config describes."""
    lists = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.ModuleList)}
    other_lengths: list[str] = []
    for path, layers in described.named_modules():
        if isinstance(layers, nn.ModuleList) and path in lists and len(lists[path]) != len(layers):
            other_lengths.append(f"{path}.")
            yield f"{path} has {len(lists[path])} layers, in the config {len(layers)} (num_hidden_layers)"
    found, expected = (
        {
            place.name: place.slot
            for place in tensor_places(each, slots, left_out=None)
            if not place.name.startswith(tuple(other_lengths)) and not is_factor(place.name)
        }
        for each in (model, described)
    )
    for name, slot in found.items():
        if name not in expected:
            yield f"{name} is not in the config"
        elif slot.shape not in (expected[name].shape, expected[name].also):
            yield f"{name} has shape {slot.shape}, in the config {expected[name].shape}"
    yield from (f"{name} is missing" for name in expected if name not in found)
