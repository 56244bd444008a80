"""What the tensors of a PEFT adapter change in a model, and the reverse."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from torchgguf.models.core.model import Model
from torchgguf.nn import Conv1D
from torchgguf.nn.clamped_experts import ClampedExperts
from torchgguf.nn.experts import ObservedExperts
from torchgguf.training.adapters.changes import AdapterError, Change
from torchgguf.training.adapters.layouts import check_shape
from torchgguf.training.adapters.peft_files import PeftAdapter
from torchgguf.training.lora import LoraSettings

# Layers whose parameters are `(..., in, out)`; of all others they are `(..., out, in)`.
_TRANSPOSED = (Conv1D, ClampedExperts)
_TENSOR = re.compile(
    r"(?P<path>.+?)(?P<nested>(\.base_layer)*)\.lora_(?P<table>embedding_)?(?P<side>[AB])(\.weight)?"
)


class _Place(NamedTuple):
    """A layer, how many adapted parameters are wrapped around this one, and whether it is an embedding."""

    path: str
    nested: int
    is_lookup: bool


def changes_of_peft(model: Model, adapter: PeftAdapter) -> dict[str, Change]:
    """Return what an adapter changes, by the names of the model's parameters.

    Args:
        model: a plain one, on the meta device.
        adapter: by PEFT's names.

    Raises:
        AdapterError: the adapter has more than low-rank matrices, lacks one of a pair, or does not match the
            model; the message names the tensor.
    """
    settings = adapter.settings
    if settings.use_dora:
        raise AdapterError("the adapter is DoRA (use_dora=True), which is not a sum of low-rank matrices")
    if settings.modules_to_save:
        names = ", ".join(settings.modules_to_save)
        raise AdapterError(f"the adapter contains whole layers (modules_to_save: {names}), not only changes")
    pairs: dict[_Place, dict[str, Tensor]] = {}
    for name, tensor in adapter.tensors.items():
        if (found := _TENSOR.fullmatch(name)) is None or tensor.dim() != 2 or not tensor.is_floating_point():
            raise AdapterError(f"{name} is not a matrix of LoRA")
        place = _Place(found["path"], found["nested"].count("."), found["table"] is not None)
        pairs.setdefault(place, {})[found["side"]] = tensor
    changes: dict[str, Change] = {}
    depths = Counter(place.path for place in pairs)
    for place, pair in pairs.items():
        if lacking := {"A", "B"} - pair.keys():
            raise AdapterError(f"the adapter lacks lora_{lacking.pop()} of {place.path}")
        parameter, change = _change(model, settings, place, pair["A"], pair["B"], depths[place.path])
        check_shape(model, parameter, change)
        changes[parameter] = change
    return changes


def _change(
    model: Model, settings: LoraSettings, place: _Place, a: Tensor, b: Tensor, depth: int
) -> tuple[str, Change]:
    """Return the name of a parameter, and its change."""
    try:
        layer = model.get_submodule(place.path)
    except AttributeError:
        raise AdapterError(
            f"{type(model).__name__} has no layer {place.path}: does the adapter belong to another model?"
        ) from None
    if isinstance(layer, ObservedExperts):
        names = _targeted(place.path, layer, settings)
        if len(names) != depth or place.nested >= depth:
            raise AdapterError(f"target_parameters do not match the matrices of {place.path}")
        parameter = f"{place.path}.{names[depth - 1 - place.nested]}"
        experts = len(layer.get_parameter(parameter.rpartition(".")[2]))
        if a.shape[0] % experts or a.shape[0] != b.shape[1]:
            raise AdapterError(f"{place.path}: lora_A and lora_B do not match {experts} experts")
        # PEFT's rows of A are ordered by expert, its columns of B by rank.
        a = a.reshape(experts, -1, a.shape[1])
        b = b.reshape(b.shape[0], -1, experts).permute(2, 0, 1)
        key = parameter
    else:
        parameter, key = f"{place.path}.weight", place.path
        if a.shape[0] != b.shape[1]:
            raise AdapterError(f"{place.path}: lora_A has rank {a.shape[0]}, lora_B {b.shape[1]}")
    change = Change(b, a, settings.scaling_of(key), place.is_lookup)
    if place.is_lookup or isinstance(layer, _TRANSPOSED):
        change = change.transposed
    return parameter, change


def _targeted(path: str, layer: nn.Module, settings: LoraSettings) -> list[str]:
    """Return which parameters of a layer are targeted, in the order in which PEFT wraps them."""
    return [
        name
        for name, _ in layer.named_parameters(recurse=False)
        if any(f".{path}.{name}".endswith(f".{target}") for target in settings.target_parameters)
    ]


def peft_of_changes(model: Model, changes: Mapping[str, Change], base: str | None = None) -> PeftAdapter:
    """Return the adapter that makes these changes: the inverse of `changes_of_peft`.

    Args:
        model: a plain one, on the meta device.
        changes: by the names of the model's parameters.
        base: the name of the model, for PEFT.
    """
    tensors: dict[str, Tensor] = {}
    modules: dict[str, Change] = {}
    parameters: dict[str, Change] = {}
    of_layer = Counter(name.rpartition(".")[0] for name in changes)
    order = {name: i for i, (name, _) in enumerate(model.named_parameters(remove_duplicate=False))}
    for parameter in sorted(changes, key=order.__getitem__):
        path = parameter.rpartition(".")[0]
        layer = model.get_submodule(path)
        change = changes[parameter]
        if isinstance(layer, nn.Embedding):
            change = replace(change, is_lookup=True)
        if change.is_lookup or isinstance(layer, _TRANSPOSED):
            change = change.transposed
        a, b = change.right, change.left
        if isinstance(layer, ObservedExperts):
            of_layer[path] -= 1
            path += ".base_layer" * of_layer[path]
            a, b = a.reshape(-1, a.shape[-1]), b.permute(1, 2, 0).reshape(b.shape[1], -1)
            parameters[parameter] = change
        else:
            modules[path] = change
        table, end = ("embedding_", "") if change.is_lookup else ("", ".weight")
        tensors[f"{path}.lora_{table}A{end}"] = a.contiguous()
        tensors[f"{path}.lora_{table}B{end}"] = b.contiguous()
    settings = _settings_of(model, modules, parameters)
    return PeftAdapter(settings, tensors, base)


def _settings_of(
    model: Model, modules: Mapping[str, Change], parameters: Mapping[str, Change]
) -> LoraSettings:
    """Return settings with the ranks and factors of changes, by the paths of layers and of parameters."""
    every = {**modules, **parameters}
    ranks = {path: change.rank for path, change in every.items()}
    alphas = {path: change.scale * change.rank for path, change in every.items()}
    (rank, _), *_ = Counter(ranks.values()).most_common(1)
    (alpha, _), *_ = Counter(alphas.values()).most_common(1)
    return LoraSettings(
        rank,
        int(alpha) if alpha == math.floor(alpha) else alpha,
        _short(modules, (path for path, _ in model.named_modules())),
        tuple(parameters),
        rank_pattern={path: each for path, each in ranks.items() if each != rank},
        alpha_pattern={path: each for path, each in alphas.items() if each != alpha},
    )


def named_targets(model: nn.Module, settings: LoraSettings, tensors: Mapping[str, Tensor]) -> LoraSettings:
    """Return settings whose `target_modules` name the layers that an adapter changes, and no others.

    Rules such as "all linear layers" find other layers in PEFT's models.
    """
    found = {match["path"] for name in tensors if (match := _TENSOR.fullmatch(name)) is not None}
    modules = [path for path in found if not _targets_of(path, settings)]
    paths = (path for path, _ in model.named_modules())
    return replace(settings, target_modules=_short(modules, paths), exclude_modules=())


def _targets_of(path: str, settings: LoraSettings) -> list[str]:
    """Return which of `target_parameters` are in a layer."""
    return [name for name in settings.target_parameters if f".{path}".endswith(f".{name.rpartition('.')[0]}")]


def _short(paths: Iterable[str], there: Iterable[str]) -> tuple[str, ...]:
    """Return the last words of paths, if no others end with them; otherwise the paths."""
    wanted = set(paths)
    words = {path.rpartition(".")[2] for path in wanted}
    named = {path for path in there if path.rpartition(".")[2] in words}
    return tuple(sorted(words if named == wanted else wanted))
