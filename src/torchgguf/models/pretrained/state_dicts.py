"""State dicts of files, or of other processes: what `load_state_dict` and `save_pretrained` accept."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from torchgguf.models.core.model import Model


def completed(model: Model, state_dict: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    """Return a state dict with the keys of the model, of one with those that `save_pretrained` writes.

    Such a file stores weights that are shared once, and the matrices of experts one by one.

    Args:
        model: of which the state is.
        state_dict: the state.
        strict: whether all parts of a parameter must be there. Otherwise the model keeps the others.
    """
    values = OrderedDict(state_dict)
    if (metadata := getattr(state_dict, "_metadata", None)) is not None:  # the versions of layers
        vars(values)["_metadata"] = metadata
    if (head := model.tied_head) is not None:
        paths = {layer: path for path, layer in model.named_modules()}
        names = [f"{paths[layer]}.weight" for layer in (model.get_input_embeddings(), head)]
        for name, other in (names, names[::-1]):
            if name not in values and other in values:
                values[name] = values[other]
    for name, parameter in model.named_parameters() if model.architecture.stacks else ():
        if name not in values:
            _join_parts(model, name, parameter, values, strict)
    return values


def _join_parts(
    model: Model, name: str, parameter: nn.Parameter, values: dict[str, Any], strict: bool
) -> None:
    """Replace the parts of a parameter by the parameter, in place."""
    base_name = model.base_name(name)
    prefix = name.removesuffix(base_name)
    for stack in model.architecture.stacks:
        rows = stack.part_names(base_name, stack.matrices(parameter.shape)) or ()
        parts = [[prefix + part for part in row] for row in rows]
        found = [part in values for row in parts for part in row]
        if not any(found) or (strict and not all(found)):
            continue
        whole = parameter.detach().clone()
        matrices = whole.view(len(parts), -1, *stack.shape_of_parts(whole.shape)[1:])
        for matrix, row in zip(matrices, parts, strict=True):
            for place, part in zip(matrix.chunk(len(row)), row, strict=True):
                if part in values:
                    place.copy_(values.pop(part))
        values[name] = whole


@contextmanager
def holding(model: Model, state_dict: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Let a model hold the parameters of a state dict for the length of a block; None changes nothing.

    Raises:
        ValueError: the state dict lacks a parameter, or has others than the model.
    """
    if state_dict is None:
        yield
        return
    values = completed(model, state_dict, strict=True)
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if absent := sorted(own - values.keys()):
        raise ValueError(f"state_dict lacks {absent[0]!r} (and {len(absent) - 1} more): it must be complete")
    if unknown := sorted(values.keys() - model.state_dict().keys()):
        raise ValueError(f"state_dict has {unknown[0]!r}, which {type(model).__name__} has not")
    held: dict[nn.Parameter, nn.Parameter] = {}  # layers that share a parameter still share it
    places = [
        (layer, name, parameter, f"{path}.{name}".removeprefix("."))
        for path, layer in model.named_modules()
        for name, parameter in layer.named_parameters(recurse=False)
    ]
    try:
        for layer, name, parameter, path in places:
            if parameter not in held:
                held[parameter] = nn.Parameter(values[path].detach(), requires_grad=False)
            layer.register_parameter(name, held[parameter])
        yield
    finally:
        for layer, name, parameter, _ in places:
            layer.register_parameter(name, parameter)
