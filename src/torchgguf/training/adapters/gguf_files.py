"""Adapters as llama.cpp's GGUF files contain them: `NAME.lora_a` and `NAME.lora_b` of tensors of a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from os import PathLike
from typing import NamedTuple

import torch
from torch import Tensor

from torchgguf import kernels
from torchgguf.container import GGUFError, GGUFFile, Metadata, TensorSource, ValueType, open_gguf, write_gguf
from torchgguf.container.errors import brief
from torchgguf.container.tensor_types import PLAIN
from torchgguf.quants import quant_type
from torchgguf.training.adapters.changes import AdapterError, Change

_A, _B = ".lora_a", ".lora_b"
_ALPHA = "adapter.lora.alpha"
# The one table that llama.cpp looks up changed rows of; its `lora_a` and `lora_b` are swapped.
_EMBEDDING = "token_embd.weight"


class FileAdapter(NamedTuple):
    """An adapter by the names of tensors in GGUF files.

    Attributes:
        architecture: of the model, as `general.architecture` states it.
        changes: by the names of the model's tensors.
        name: of the adapter, or None.
    """

    architecture: str
    changes: Mapping[str, Change]
    name: str | None = None

    def check_architecture(self, architecture: str, name: str) -> None:
        """Check that the adapter belongs to models of an architecture.

        Args:
            architecture: of the model.
            name: names the model in the error.

        Raises:
            AdapterError: it belongs to models of another one.
        """
        if architecture != self.architecture:
            raise AdapterError(
                f"the adapter belongs to a {self.architecture} model, but {name} is a {architecture} model"
            )


def read_gguf_adapter(path: str | PathLike[str]) -> FileAdapter:
    """Read an adapter.

    Args:
        path: of the file.

    Raises:
        GGUFError: the file is broken.
        AdapterError: it is not a LoRA adapter, or has tensors that are not pairs of low-rank matrices; the
            message names the file and the tensor.
    """
    with open_gguf(path, mmap=False) as file:
        _check_kind(file)
        alpha = file.metadata.get(_ALPHA, 0.0)
        if not isinstance(alpha, float) or not math.isfinite(alpha):
            raise AdapterError(f"{path}: {_ALPHA} must be a number, got {brief(alpha)}")
        changes = {name: _pair(file, name, alpha) for name in _changed(file)}
        stated = file.metadata.get("general.name")
        architecture = str(file.metadata["general.architecture"])
    return FileAdapter(architecture, changes, stated if isinstance(stated, str) else None)


def is_gguf_adapter(file: GGUFFile) -> bool:
    """Return whether a GGUF file is an adapter, not a model."""
    return file.metadata.get("general.type") == "adapter"


def _check_kind(file: GGUFFile) -> None:
    path = file.paths[0]
    if not is_gguf_adapter(file):
        kind = brief(file.metadata.get("general.type", "model"))
        raise AdapterError(f"{path} is not an adapter: its general.type is {kind}")
    if (method := file.metadata.get("adapter.type")) != "lora":
        raise AdapterError(f"{path}: the adapter.type {brief(method)} is unsupported, it must be 'lora'")
    if "general.architecture" not in file.metadata:
        raise GGUFError("the key general.architecture is missing", path=path)
    if "adapter.alora.invocation_tokens" in file.metadata:
        raise AdapterError(f"{path}: adapter.alora.invocation_tokens is unsupported")


def _changed(file: GGUFFile) -> list[str]:
    """Return the names of the tensors that an adapter changes."""
    names: list[str] = []
    for name in file.tensors:
        end = next((end for end in (_A, _B) if name.endswith(end)), None)
        if end is None:
            raise AdapterError(f"{file.paths[0]}: tensor {name} is neither a {_A} nor a {_B}")
        base = name.removesuffix(end)
        if end == _A:
            names.append(base)
        if (other := base + (_B if end == _A else _A)) not in file.tensors:
            raise AdapterError(f"{file.paths[0]} lacks the tensor {other}")
    if not names:
        raise AdapterError(f"{file.paths[0]} contains no tensors")
    return names


def _pair(file: GGUFFile, name: str, alpha: float) -> Change:
    a, b = (_plain(file, name + end) for end in (_A, _B))
    is_lookup = name == _EMBEDDING
    left, right = (a, b.mT) if is_lookup else (b, a)
    if left.dim() != right.dim() or left.dim() not in (2, 3) or left.shape[-1] != right.shape[-2]:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise AdapterError(f"{file.paths[0]}: {name}{_A} and {_B} must be low-rank, got shapes {shapes}")
    if left.dim() == 3 and left.shape[0] != right.shape[0]:
        left, right = (x.expand(max(len(left), len(right)), -1, -1) for x in (left, right))
    return Change(left, right, alpha / left.shape[-1] if alpha else 1.0, is_lookup)


def _plain(file: GGUFFile, name: str) -> Tensor:
    info, tensor = file.tensors[name], file[name]
    plain = tensor.float() if info.type in PLAIN else kernels.dequantize(tensor, quant_type(info.type))
    if not all(end.isfinite() for end in plain.aminmax()):
        raise AdapterError(f"{file.paths[0]}: tensor {name} has numbers that are not finite")
    return plain.clone()


def write_gguf_adapter(path: str | PathLike[str], adapter: FileAdapter) -> None:
    """Write an adapter in float32, as llama.cpp's converter does.

    The file has one factor, `alpha / r`, for all tensors. Where changes have others, `lora_b` makes up for
    it.

    Args:
        path: the file to create or replace when the new one is complete.
        adapter: by the names of tensors.

    Raises:
        AdapterError: it changes a table that llama.cpp looks up unchanged rows of; the message names it.
        GGUFError: the disk is full; an older file is as it was.
    """
    alphas = Counter(change.scale * change.rank for change in adapter.changes.values())
    alpha = float(torch.tensor(alphas.most_common(1)[0][0] or 1.0, dtype=torch.float32))
    metadata = Metadata()
    metadata["general.architecture"] = adapter.architecture
    metadata["general.type"] = "adapter"
    metadata["adapter.type"] = "lora"
    if adapter.name:
        metadata["general.name"] = adapter.name
    metadata.set(_ALPHA, alpha, ValueType.FLOAT32)
    tensors: dict[str, TensorSource] = {}
    for name, change in adapter.changes.items():
        if change.is_lookup and name != _EMBEDDING:
            raise AdapterError(
                f"the adapter changes {name}, a table that llama.cpp looks up unchanged: merge it instead"
            )
        change = change.rescaled(alpha / change.rank)
        a, b = (change.left, change.right.mT) if change.is_lookup else (change.right, change.left)
        tensors[name + _A] = TensorSource.of(a.float().contiguous())
        tensors[name + _B] = TensorSource.of(b.float().contiguous())
    write_gguf(path, metadata, tensors)
