"""Build the model here that shares all layers and weights of a model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from torchgguf.container import LazyTensor
from torchgguf.generation import GenerationConfig, GenerationMixin
from torchgguf.models import registry
from torchgguf.models.core.model import Model
from torchgguf.models.core.provenance import GGUFSource, Origin
from torchgguf.models.io.checkpoint import list_names
from torchgguf.nn import PackedLayer
from torchgguf.nn.factors import is_factor
from torchgguf.nn.foreign import packing_library
from torchgguf.nn.slots import slots

# The attribute of a model of transformers that holds where the model here came from.
SOURCE = "_torchgguf_source"


class Source(NamedTuple):
    """Where a model came from: a GGUF file, a checkpoint, or neither; and what it keeps of it."""

    gguf: GGUFSource | None = None
    origin: Origin | None = None
    kept: Mapping[str, LazyTensor] = MappingProxyType({})


def is_of_transformers(model: object) -> bool:
    """Return whether a model is one of transformers; that package is not imported."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def from_transformers(theirs: Any) -> Any:
    """Convert a model of transformers.

    Args:
        theirs: of an architecture that is supported here. Its layers may come from `to_transformers`.

    Returns:
        A `PreTrainedModel` of this package.

    Raises:
        ValueError: the architecture, the class or the config is unsupported, or the model has other weights
            than its class; the message names them.
    """
    architectures = registry.architectures_of_type(theirs.config.model_type)
    classes = {found.__name__: found for each in architectures for found in each.classes.values()}
    names = [base.__name__ for base in type(theirs).__mro__ if base.__name__ in classes]
    if not names:
        known = ", ".join(classes)
        raise ValueError(f"{type(theirs).__name__} is not supported; these classes are: {known}")
    for path, layer in theirs.named_modules():
        if not isinstance(layer, PackedLayer) and (library := packing_library(layer)) is not None:
            raise ValueError(
                f"{path} is packed by {library}, which is unsupported: load the model without it"
            )
    config = architectures[0].config_class.from_dict(theirs.config.to_dict())
    config.dtype = theirs.dtype
    with torch.device("meta"):
        ours: Model = classes[names[0]](config)
    _share(ours, theirs)
    ours.gguf, ours.origin, ours.kept = getattr(theirs, SOURCE, Source(None, _origin(theirs)))
    generation_config = getattr(theirs, "generation_config", None)
    if isinstance(ours, GenerationMixin) and generation_config is not None:
        ours.generation_config = GenerationConfig.from_dict(generation_config.to_dict())
    return ours.train(theirs.training)


def _share(ours: Model, theirs: Any) -> None:
    """Put the parameters of transformers' layers into ours, or the layers themselves if they are ours."""
    named = ours.named_parameters(remove_duplicate=False)
    expected = {name: tuple(parameter.shape) for name, parameter in named}
    places = dict(ours.named_modules())
    strange: list[str] = []
    for path, layer in theirs.named_modules():
        place = places.get(path)
        shapes = None if place is None else {slot.name: slot.shape for slot in slots(place)}
        if isinstance(layer, PackedLayer) and shapes is not None:
            if {slot.name: slot.shape for slot in slots(layer) if not is_factor(slot.name)} != shapes:
                strange.append(path)
            ours.set_submodule(path, layer)
            continue
        for name, parameter in layer.named_parameters(recurse=False):
            full = f"{path}.{name}".removeprefix(".")
            if place is None or expected.get(full) != tuple(parameter.shape):
                strange.append(full)
            else:
                setattr(place, name, parameter)
        # Biases by which experts are chosen: they have no gradient here either.
        for name, buffer in layer.named_buffers(recurse=False):
            if expected.get(f"{path}.{name}") == tuple(buffer.shape):
                setattr(place, name, nn.Parameter(buffer, requires_grad=False))
    missing = [name for name, parameter in ours.named_parameters() if parameter.is_meta]
    if problems := [*strange, *missing]:
        raise ValueError(
            f"the weights do not match {type(ours).__name__}: {list_names(problems)} are missing, unexpected "
            "or of other shapes (adapters must be merged first, and weights must be in memory)"
        )
    if ours.get_output_embeddings() is not None:
        ours.config.tie_word_embeddings = ours.tied_head is not None


def _origin(theirs: Any) -> Origin | None:
    """Return the folder or the repository that transformers loaded a model from."""
    place = getattr(theirs, "name_or_path", "")
    return Origin(Path(place), Path(place).name) if place else None
