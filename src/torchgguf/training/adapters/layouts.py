"""How changes of a model's parameters lie in GGUF files: names, order of rows and columns, parts.

Layers list their tensors in files as slots, and weight maps move rows. Both only move numbers. So where a
number of a file comes from is measured, not stated again: parameters that contain the numbers of their rows,
or of their columns, are read as if they were saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchgguf.models.core.model import Model
from torchgguf.models.core.weight_map import RowPermutation, Scaling
from torchgguf.nn.slots import slots
from torchgguf.training.adapters.changes import AdapterError, Change, summed


class FileMatrix(NamedTuple):
    """Where the numbers of a tensor of a file are in a parameter.

    Attributes:
        name: of the tensor.
        rows: of the parameter, `(..., n)`: one for each row of the tensor, or for each column if it is
            transposed.
        columns: of the parameter, `(..., m)`, likewise.
        is_transposed: whether rows of the tensor are columns of the parameter.
        transform: moves the rows of the tensor after that.
    """

    name: str
    rows: Tensor
    columns: Tensor
    is_transposed: bool
    transform: RowPermutation | Scaling | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        *matrices, rows, columns = *self.rows.shape, self.columns.shape[-1]
        return (*matrices, columns, rows) if self.is_transposed else (*matrices, rows, columns)


def file_matrices(model: Model, parameter: str) -> list[FileMatrix]:
    """Return the tensors of a file that contain a matrix of a model.

    Args:
        model: a plain one, on the meta device.
        parameter: its name in the model.

    Raises:
        AdapterError: GGUF files have no tensor of its own for it.
    """
    path, _, name = parameter.rpartition(".")
    layer = model.get_submodule(path)
    if layer is model.tied_head:
        raise AdapterError(
            f"{path} shares the weights of the embedding, so that its change has no tensor in GGUF files: "
            "train other layers, or a model whose head has its own weights"
        )
    shape = layer.get_parameter(name).shape
    of_rows = _read(layer, name, torch.arange(shape[-2], dtype=torch.int32)[:, None].expand(shape))
    of_columns = _read(layer, name, torch.arange(shape[-1], dtype=torch.int32).expand(shape))
    found = []
    for slot, rows in of_rows.items():
        target = model.architecture.weights.to_gguf(model.base_name(f"{path}.{slot}"), model.config)
        if target is None:
            raise AdapterError(f"GGUF files have no tensor for {parameter}")
        columns = of_columns[slot]
        is_transposed = bool((rows[..., 0, 0] != rows[..., 0, -1]).any())
        down, along = (columns, rows) if is_transposed else (rows, columns)
        down, along = down[..., 0].long(), along[..., 0, :].long()
        of_rows_and_columns = (along, down) if is_transposed else (down, along)
        found.append(FileMatrix(target[0], *of_rows_and_columns, is_transposed, target[1].transform))
    return found


def _read(layer: nn.Module, name: str, values: Tensor) -> dict[str, Tensor]:
    """Read the slots that depend on a parameter, given what it is to contain."""
    old = layer._parameters[name]
    layer._parameters[name] = nn.Parameter(values, requires_grad=False)
    try:
        read = {slot.name: slot.read() for slot in slots(layer) if len(slot.shape) > 1}
    finally:
        layer._parameters[name] = old
    return {slot: tensor for slot, tensor in read.items() if not tensor.is_meta}


def changes_in_file(model: Model, changes: Mapping[str, Change]) -> dict[str, Change]:
    """Return changes by the names and in the layout of tensors in GGUF files.

    Args:
        model: a plain one, on the meta device.
        changes: by the names of the model's parameters.

    Raises:
        AdapterError: a parameter is unknown or has another shape, or is in no GGUF file; the message names
            it.
    """
    found: dict[str, Change] = {}
    for parameter, change in changes.items():
        check_shape(model, parameter, change)
        for matrix in file_matrices(model, parameter):
            part = replace(
                change,
                left=_taken(change.left, matrix.rows, dim=-2),
                right=_taken(change.right, matrix.columns, dim=-1),
            )
            part = part.transposed if matrix.is_transposed else part
            left = part.left.contiguous()
            if matrix.transform is not None:
                left = matrix.transform.to_gguf(left, model.config)
            found[matrix.name] = replace(part, left=left, right=part.right.contiguous())
    return found


def changes_in_model(model: Model, changes: Mapping[str, Change]) -> dict[str, Change]:
    """Return changes by the names and in the layout of a model's parameters: the inverse of the above.

    Args:
        model: a plain one, on the meta device.
        changes: by the names of tensors in GGUF files.

    Raises:
        AdapterError: the model has no such tensor, or it has another shape; the message names it.
    """
    left_over = dict(changes)
    found: dict[str, Change] = {}
    for parameter, matrices in _matrices_of(model, changes):
        shape = model.get_parameter(parameter).shape
        parts: list[Change] = []
        for matrix in matrices:
            if (change := left_over.pop(matrix.name, None)) is not None:
                parts += _spread(model, matrix, change, shape)
        found[parameter] = summed(parts)
    if left_over:
        raise AdapterError(
            f"{type(model).__name__} has no tensor {next(iter(left_over))}: does the adapter belong to "
            "another model?"
        )
    return found


def check_shape(model: Model, parameter: str, change: Change) -> None:
    """Check that a model has a parameter that a change matches.

    Raises:
        AdapterError: it has not; the message names the parameter, and both shapes.
    """
    try:
        expected = tuple(model.get_parameter(parameter).shape)
    except AttributeError:
        raise AdapterError(
            f"{type(model).__name__} has no parameter {parameter}: does the adapter belong to another model?"
        ) from None
    if change.shape != expected:
        raise AdapterError(
            f"the adapter changes a {parameter} of shape {change.shape}, but in {type(model).__name__} it "
            f"has shape {expected}: does the adapter belong to another model?"
        )


def _matrices_of(model: Model, names: Mapping[str, Change]) -> Iterator[tuple[str, list[FileMatrix]]]:
    """Yield the parameters that some tensors of a file contain, with all their tensors."""
    for path, layer in model.named_modules():
        if layer is model.tied_head:
            continue
        in_file = (f"{path}.{slot.name}" for slot in slots(layer))
        targets = (model.architecture.weights.to_gguf(model.base_name(n), model.config) for n in in_file)
        if not any(target is not None and target[0] in names for target in targets):
            continue
        for name, value in layer.named_parameters(recurse=False):
            if value.dim() > 1:
                matrices = file_matrices(model, f"{path}.{name}")
                if any(matrix.name in names for matrix in matrices):
                    yield f"{path}.{name}", matrices


def _spread(model: Model, matrix: FileMatrix, change: Change, shape: torch.Size) -> Iterator[Change]:
    """Yield the parts of a tensor's change in a parameter of this shape: one for each head in the tensor."""
    if change.shape != matrix.shape:
        raise AdapterError(
            f"the adapter changes a {matrix.name} of shape {change.shape}, but in {type(model).__name__} it "
            f"has shape {matrix.shape}: does the adapter belong to another model?"
        )
    if matrix.transform is not None:
        change = replace(change, left=matrix.transform.to_hf(change.left.contiguous(), model.config))
    if matrix.is_transposed:
        change = change.transposed
    whole = (change.left, change.right, matrix.rows, matrix.columns)
    is_of_heads = change.left.dim() > len(shape)
    for left, right, rows, columns in zip(*whole, strict=True) if is_of_heads else [whole]:
        whole_left = left.new_zeros(*shape[:-1], change.rank)
        whole_right = right.new_zeros(*shape[:-2], change.rank, shape[-1])
        whole_left.scatter_(-2, rows[..., None].expand(left.shape), left)
        whole_right.scatter_(-1, columns[..., None, :].expand(right.shape), right)
        yield replace(change, left=whole_left, right=whole_right)


def _taken(factor: Tensor, index: Tensor, dim: int) -> Tensor:
    """Take rows (`dim` -2) or columns (-1) of a factor, or of those of each expert or head."""
    if index.dim() == 1:
        return factor.index_select(dim, index)
    if factor.dim() == 2:  # the heads of a file are rows of one matrix
        return torch.stack([factor.index_select(dim, each) for each in index])
    pairs = zip(factor, index, strict=True)
    return torch.stack([one.index_select(dim, each) for one, each in pairs])
