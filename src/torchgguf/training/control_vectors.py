"""Control vectors: directions that are added to the stream of a model, as llama.cpp's files contain them.

A file has a vector `direction.N` for each layer after which one is added. Layers count from 0, and llama.cpp
adds none after the first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from torchgguf.container import Metadata, TensorSource, TensorType, ValueType, open_gguf, write_gguf
from torchgguf.container.errors import brief
from torchgguf.models.core.model import Model

_logger = logging.getLogger(__name__)

_ARCHITECTURE = "controlvector"
_HINT, _COUNT = f"{_ARCHITECTURE}.model_hint", f"{_ARCHITECTURE}.layer_count"
_DIRECTION = re.compile(r"direction\.([0-9]{1,6})")
_HANDLES = "control_vector_handles"  # an attribute of models


@dataclass(frozen=True)
class ControlVector:
    """Directions in the stream of a model.

    Attributes:
        directions: by the number of the layer after which each is added, from 1; float32 `(hidden_size,)`.
        model_hint: the architecture of the model, as its files state it, or None.
    """

    directions: Mapping[int, Tensor]
    model_hint: str | None = None


def read_control_vector(path: str | PathLike[str]) -> ControlVector:
    """Read a control vector.

    Args:
        path: of the GGUF file.

    Raises:
        GGUFError: the file is broken.
        ValueError: it is not a control vector, or its directions are not vectors of one size; the message
            names the file and the tensor.
    """
    with open_gguf(path, mmap=False) as file:
        if (kind := file.metadata.get("general.architecture")) != _ARCHITECTURE:
            raise ValueError(f"{path} is not a control vector: its general.architecture is {brief(kind)}")
        directions: dict[int, Tensor] = {}
        for name, info in file.tensors.items():
            found = _DIRECTION.fullmatch(name)
            if found is None or int(found[1]) == 0:
                raise ValueError(f"{path}: tensor {name} is not direction.N of a layer N from 1")
            if info.type is not TensorType.F32 or len(info.shape) != 1:
                raise ValueError(
                    f"{path}: {name} must be a vector of type F32, got {info.type.name} {info.shape}"
                )
            directions[int(found[1])] = file[name].clone()
        hint = file.metadata.get(_HINT)
    if not directions:
        raise ValueError(f"{path} contains no directions")
    if len({len(direction) for direction in directions.values()}) > 1:
        raise ValueError(f"{path}: the directions have several sizes")
    return ControlVector(directions, hint if isinstance(hint, str) else None)


def write_control_vector(path: str | PathLike[str], vector: ControlVector) -> None:
    """Write a control vector as llama.cpp's generator does.

    Args:
        path: the GGUF file to create or replace when the new one is complete.
        vector: its directions.

    Raises:
        ValueError: there are no directions, or one is of a layer below 1, or not a vector.
        GGUFError: the disk is full; an older file is as it was.
    """
    if not vector.directions or min(vector.directions) < 1:
        raise ValueError("a control vector needs directions, of layers from 1 on")
    if odd := [layer for layer, direction in vector.directions.items() if direction.dim() != 1]:
        raise ValueError(f"the direction of layer {odd[0]} is not a vector")
    metadata = Metadata()
    metadata["general.architecture"] = _ARCHITECTURE
    metadata[_HINT] = vector.model_hint or ""
    metadata.set(_COUNT, len(vector.directions), ValueType.INT32)
    tensors = {
        f"direction.{layer}": TensorSource.of(vector.directions[layer].detach().float().cpu().contiguous())
        for layer in sorted(vector.directions)
    }
    write_gguf(path, metadata, tensors)


@dataclass
class _Adding:
    """A hook of a layer, which adds a vector to what it returns."""

    direction: Tensor

    def __call__(self, layer: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        if self.direction.device != output.device:
            self.direction = self.direction.to(output.device)
        return output + self.direction.to(output.dtype)


def add_control_vector(
    model: Model, vector: ControlVector, factor: float = 1.0, layers: tuple[int, int] | None = None
) -> None:
    """Add a control vector to the stream of a model, until `remove_control_vectors`. Several add up.

    Args:
        model: any decoder.
        vector: the directions.
        factor: of the directions.
        layers: the first and the last layer after which a direction is added; by default all that have one.

    Raises:
        ValueError: the vector does not belong to the model, or has no direction in this range.
    """
    stack: Any = model.base_model
    stream: nn.ModuleList | None = getattr(stack, getattr(stack, "layers_name", ""), None)
    if stream is None:
        raise ValueError(f"control vectors are unsupported by {type(model).__name__}")
    size = model.config.hidden_size
    for layer, direction in vector.directions.items():
        if layer >= len(stream):
            raise ValueError(
                f"the control vector has a direction for layer {layer}, but {type(model).__name__} has "
                f"{len(stream)} layers: does it belong to another model?"
            )
        if len(direction) != size:
            raise ValueError(
                f"the control vector has directions of size {len(direction)}, but the stream of "
                f"{type(model).__name__} has {size}: does it belong to another model?"
            )
    first, last = layers or (1, len(stream) - 1)
    chosen = [layer for layer in vector.directions if first <= layer <= last]
    if not chosen:
        raise ValueError(f"the control vector has no direction for layers {first} to {last}")
    architecture = model.architecture.gguf_of(model.config)
    if vector.model_hint and vector.model_hint != architecture:
        _logger.warning(
            "the control vector was made for %s, but the model is %s", brief(vector.model_hint), architecture
        )
    handles: list[RemovableHandle] = vars(model).setdefault(_HANDLES, [])
    for layer in chosen:
        handles.append(stream[layer].register_forward_hook(_Adding(factor * vector.directions[layer])))


def remove_control_vectors(model: Model) -> None:
    """Remove all control vectors from a model."""
    for handle in vars(model).pop(_HANDLES, []):
        handle.remove()
