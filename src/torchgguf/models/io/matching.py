"""Match tensors with the parameters of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchgguf.container import LazyTensor, TensorType
from torchgguf.models.core.config import FLOATING_DTYPES
from torchgguf.models.core.model import Model
from torchgguf.models.io.checkpoint import list_names
from torchgguf.models.io.places import tensor_places
from torchgguf.models.io.supply import TensorSupply
from torchgguf.nn.factors import FACTOR_KINDS, factor_name
from torchgguf.nn.slots import Slot
from torchgguf.quants import quant_types

Shape: TypeAlias = tuple[int, ...]


class Match(NamedTuple):
    """What fills a model.

    Attributes:
        tensors: for each layer, by its path, the slots and the tensors that fill them.
        new: names of the parameters of a head for which there are no tensors.
    """

    tensors: dict[str, list[tuple[Slot, LazyTensor]]]
    new: list[str]


def match(model: Model, supply: TensorSupply, new_sizes: bool = False) -> Match:
    """Match every tensor with a parameter, and every parameter with a tensor.

    Args:
        model: its parameters may be on the meta device.
        supply: the tensors. Those that match are removed from it, so that each can leave memory early.
        new_sizes: whether a parameter of a head is new if its tensor has another shape.

    Returns:
        The tensors of each layer, and the names of new parameters.

    Raises:
        GGUFError: the tensors of a GGUF file do not match. The message names all that are unused, all that
            are missing, and all with wrong shapes or dtypes.
        CheckpointError: the same of a checkpoint.
    """
    supply.separate(model)
    _remove_copy(model, supply)
    tensors, matched, stored = supply.tensors, Match({}, []), len(supply.tensors)
    missing: list[str] = []
    wrong: list[str] = []
    for place in tensor_places(model, supply.layout.slots, left_out=model.tied_head):
        name, in_base = model.base_name(place.name), model.is_in_base(place.name)
        rows, shapes = _parts(name, place.slot, supply, stored - len(missing))
        parts = [part for row in rows for part in row]
        found = {part: _widened(tensors.pop(part), shapes) for part in parts if part in tensors}
        absent = [supply.shown(part, in_base) for part in parts if part not in found]
        problems = [*_problems(found, shapes)]
        if not absent and not problems:
            tensor = found[name] if parts == [name] else _joined(rows, found, place.slot.shape)
            filled = matched.tensors.setdefault(place.path, [])
            filled.append((place.slot, tensor))
            for part, slot, factor in _factors(name, place.slot, tensors):
                filled.append((slot, factor))
                problems += _problems({part: factor}, [slot.shape])
            wrong += [f"{supply.shown(part, in_base)} {text}" for part, text in problems]
        elif not in_base and (supply.may_lack(name) if absent else new_sizes):
            matched.new.append(place.name)
        else:
            missing += absent
            wrong += [f"{supply.shown(part, in_base)} {text}" for part, text in problems]
    unused = [
        *supply.unknown,
        *(
            supply.shown(name, name not in supply.heads)
            for name in tensors
            if not supply.may_ignore(name, model)
        ),
    ]
    kinds = {"unused tensors": unused, "missing tensors": missing, "wrong tensors": wrong}
    if texts := [f"{kind}: {list_names(names)}" for kind, names in kinds.items() if names]:
        raise supply.error(f"the tensors do not match {type(model).__name__}: {'; '.join(texts)}")
    return matched


def _remove_copy(model: Model, supply: TensorSupply) -> None:
    """Remove the head's tensor if the head shares the weights of the embedding, and both are stored."""
    if (head := model.tied_head) is None:
        return
    paths = {module: path for path, module in model.named_modules()}
    layers = (model.get_input_embeddings(), head)
    name, copy_name = (model.base_name(f"{paths[layer]}.weight") for layer in layers)
    if (copy := supply.tensors.pop(copy_name, None)) is None:
        return
    original = supply.tensors.setdefault(name, copy)
    a, b = original.load(), copy.load()
    if a.data_ptr() != b.data_ptr() and not (original.type == copy.type and torch.equal(a, b)):
        both = f"{supply.shown(copy_name, in_base=False)} and {supply.shown(name, in_base=True)}"
        raise supply.error(
            f"the config states tie_word_embeddings=True, but {both} differ: "
            "set tie_word_embeddings=False to use both"
        )


def _widened(tensor: LazyTensor, shapes: Sequence[Shape | None]) -> LazyTensor:
    """Return a tensor with dimensions of size 1 in front if it lacks only those, as in some GGUF files."""
    for shape in shapes if tensor.shape not in shapes else ():
        more = len(shape or ()) - len(tensor.shape)
        if shape is not None and more > 0 and (1,) * more + tensor.shape == shape:
            return replace(tensor, shape=shape, load=partial(_in_shape, tensor.load, shape))
    return tensor


def _in_shape(load: Callable[[], Tensor], shape: Shape) -> Tensor:
    tensor = load()
    return tensor.reshape(*shape[:-1], -1)


def _parts(
    name: str, slot: Slot, supply: TensorSupply, most: int
) -> tuple[Sequence[Sequence[str]], Sequence[Shape | None]]:
    """Return the names of the tensors that fill a slot, matrix by matrix, and the shapes allowed for each.

    `most` bounds the names of missing parts: a config may state any number of experts in each layer.
    """
    for stack in supply.stacks if name not in supply.tensors else ():
        count = stack.matrices(slot.shape)
        if count <= min(most, len(supply.tensors)) and (rows := stack.part_names(name, count)) is not None:
            return rows, [stack.shape_of_parts(slot.shape)]
    return [[name]], [slot.shape, slot.also]


def _factors(
    name: str, matrix: Slot, tensors: dict[str, LazyTensor]
) -> Iterator[tuple[str, Slot, LazyTensor]]:
    """Remove the factors of a matrix from the tensors, and return their names, slots and tensors."""
    for kind in FACTOR_KINDS if matrix.factors is not None else ():
        if (factor := tensors.pop(full := factor_name(name, kind), None)) is not None:
            assert matrix.factors is not None
            yield full, Slot(factor_name(matrix.name, kind), matrix.factors, factor.load), factor


def _problems(tensors: dict[str, LazyTensor], shapes: Sequence[Shape | None]) -> Iterable[tuple[str, str]]:
    for name, tensor in tensors.items():
        if tensor.shape not in shapes:
            yield name, f"has shape {tensor.shape}, expected {shapes[0]}"
        elif not tensor.is_packed:
            if tensor.dtype not in FLOATING_DTYPES:
                yield name, f"has the unsupported dtype {tensor.dtype}"
        elif len(tensor.shape) < 2:
            # llama.cpp packs no vector either. Their rows are single numbers, which transforms move.
            yield (
                name,
                f"is packed as {_type_name(tensor)}, but norms and biases must be floating-point numbers",
            )
        elif not any(tensor.type == kind.id for kind in quant_types()):
            yield name, f"has the unsupported type {_type_name(tensor)}"


def _type_name(tensor: LazyTensor) -> str:
    assert isinstance(tensor.type, TensorType)
    return tensor.type.name


def _joined(rows: Sequence[Sequence[str]], tensors: dict[str, LazyTensor], shape: Shape) -> LazyTensor:
    """Return the tensor whose matrices consist of parts, one above the other.

    Its dtype is the widest of the parts.
    """
    parts = [[tensors[name] for name in row] for row in rows]
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))
    return LazyTensor(shape, dtype, partial(_load_parts, parts, shape, dtype))


def _load_parts(parts: Sequence[Sequence[LazyTensor]], shape: Shape, dtype: torch.dtype) -> Tensor:
    whole = torch.empty(shape, dtype=dtype)
    matrices = whole.view(len(parts), -1, *parts[0][0].shape[1:])
    for matrix, row in zip(matrices, parts, strict=True):
        for place, part in zip(matrix.chunk(len(row)), row, strict=True):
            place.copy_(part.load())
    return whole
