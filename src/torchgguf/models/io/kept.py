"""Tensors of layers that models keep, but do not run: their names and forms in both kinds of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from torchgguf import kernels
from torchgguf.container import LazyTensor, TensorSource, TensorType
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import Config
from torchgguf.models.core.model import Model
from torchgguf.models.core.weight_map import Stack
from torchgguf.nn import FileForm
from torchgguf.packing import stays_wide
from torchgguf.quants import QuantType, quant_type

# The number of an expert in the name of one of its matrices.
_EXPERT = re.compile(r"(?<=\.experts\.)(\d+)\.")
_HALVES = {torch.float16: TensorType.F16, torch.bfloat16: TensorType.BF16}


def kept_of_checkpoint(
    tensors: Mapping[str, LazyTensor], architecture: Architecture, config: Config
) -> dict[str, LazyTensor]:
    """Return tensors of a checkpoint, given by their names in weight maps, as GGUF files store them.

    Those for which GGUF files have no name are left out, as are experts of different shapes.
    """
    weights = architecture.weights
    groups: dict[str, dict[int, LazyTensor]] = {}
    for name, tensor in _separated(tensors, architecture.stacks):
        expert = _EXPERT.search(name)
        number = -1 if expert is None else int(expert[1])
        groups.setdefault(_EXPERT.sub("", name), {})[number] = tensor
    kept = {}
    for name, parts in groups.items():
        target = weights.to_gguf(f"{name}.bias", config) or weights.to_gguf(name, config)
        if target is None or len({(part.shape, part.dtype) for part in parts.values()}) > 1:
            continue
        matrices = [parts[number] for number in sorted(parts)]
        first = matrices[0]
        if -1 not in parts:
            first = LazyTensor((len(matrices), *first.shape), first.dtype, partial(_stacked, matrices))
        if (form := architecture.kept_form(name)) is not None:
            first = LazyTensor(first.shape, torch.float32, partial(_formed, first, form.to_file))
        kept[target[0]] = first
    return kept


def _separated(
    tensors: Mapping[str, LazyTensor], stacks: Sequence[Stack]
) -> Iterator[tuple[str, LazyTensor]]:
    """Iterate over tensors, with those matrices of experts apart that a checkpoint stores in one."""
    for name, tensor in tensors.items():
        found = (stack.part_names(name, 1) for stack in stacks)
        if (names := next((parts for parts in found if parts is not None), None)) is None:
            yield name, tensor
            continue
        shape = (tensor.shape[0], tensor.shape[1] // len(names[0]), *tensor.shape[2:])
        for i, part in enumerate(names[0]):
            load = partial(_rows, tensor, slice(i * shape[1], (i + 1) * shape[1]))
            yield _EXPERT.sub("", part), LazyTensor(shape, tensor.dtype, load)


def _rows(tensor: LazyTensor, rows: slice) -> Tensor:
    return tensor.load()[:, rows].contiguous()


def _formed(tensor: LazyTensor, form: Callable[[Tensor], Tensor]) -> Tensor:
    return form(tensor.load().float())


def _stacked(matrices: list[LazyTensor]) -> Tensor:
    return torch.stack([matrix.load() for matrix in matrices])


def kept_for_gguf(model: Model) -> dict[str, TensorSource]:
    """Return the kept tensors of a model, as far as the config has their layers, for a GGUF file."""
    kept = {}
    for name, tensor in model.kept.items():
        if model.architecture.is_kept(name, model.config):
            kind, load = tensor.type, tensor.load
            if not isinstance(kind, TensorType):
                wide = len(tensor.shape) < 2 or stays_wide(name)
                kind = TensorType.F32 if wide else _HALVES.get(kind, TensorType.F32)
                load = partial(_converted, load, quant_type(kind))
            kept[name] = TensorSource(tensor.shape, kind, load)
    return kept


def _converted(load: Callable[[], Tensor], kind: QuantType) -> Tensor:
    return load().to(kind.dtype)


def kept_for_checkpoint(model: Model, dtype: torch.dtype) -> Iterator[tuple[str, LazyTensor]]:
    """Iterate over the kept tensors of a model by their names in checkpoints, unpacked, in a dtype."""
    architecture = model.architecture
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    for name, tensor in model.kept.items():
        found = architecture.weights.to_hf(name, model.config)
        if found is None or not architecture.is_kept(name, model.config, in_new=True):
            continue
        own = found[0].replace("_bias.bias", "_bias")
        hf_name = architecture.in_checkpoints(own, model.config, prefix)
        plain = LazyTensor(tensor.shape, dtype, partial(_plain, tensor, dtype, architecture.kept_form(own)))
        if ".experts." not in hf_name:
            yield hf_name, plain
            continue
        for expert in range(tensor.shape[0]):
            part = hf_name.replace(".experts.", f".experts.{expert}.")
            yield part, LazyTensor(tensor.shape[1:], dtype, partial(_matrix, plain, expert))


def _plain(tensor: LazyTensor, dtype: torch.dtype, form: FileForm | None) -> Tensor:
    if form is not None:
        return form.to_layer(tensor.load()).to(dtype)
    if not tensor.is_packed:
        return tensor.load().to(dtype)
    assert isinstance(tensor.type, TensorType)
    return kernels.dequantize(tensor.load(), quant_type(tensor.type), dtype)


def _matrix(tensor: LazyTensor, expert: int) -> Tensor:
    return tensor.load()[expert]
