"""Adding adapters to a model, and removing them."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from torchgguf.training.lora.experts import LoraExperts
from torchgguf.training.lora.layer import LoraLayer
from torchgguf.training.lora.settings import ALL_LINEAR, LoraSettings
from torchgguf.training.lora.switching import adapter_record, adapter_settings, find_adapter, set_adapters
from torchgguf.training.lora.targets import (
    adapter_class,
    adapter_layers,
    find_experts,
    find_targets,
    is_named,
    layers,
)
from torchgguf.training.lora.whole import SavedLayer


def add_lora(
    model: nn.Module,
    r: int = 16,
    alpha: float = 32,
    target_modules: Sequence[str] | str = ALL_LINEAR,
    dropout: float = 0.0,
    *,
    use_rslora: bool = False,
    use_dora: bool = False,
    modules_to_save: Sequence[str] = (),
    adapter: str = "default",
    **settings: Any,
) -> LoraSettings:
    """Add an adapter to a model, in place, which computes the same as before until it is trained.

    All other parameters are frozen, packed weights stay packed. The new adapter is the only one that applies
    and is trained; `set_adapters` chooses others. The other options have the meaning of `LoraSettings`.

    Args:
        model: any model of this package.
        r: rank.
        alpha: products are multiplied by `alpha / r`.
        target_modules: names of layers, a regular expression for whole paths, or `"all-linear"`.
        dropout: probability with which elements of an adapter's input are zero in training.
        use_rslora: whether products are multiplied by `alpha / sqrt(r)`.
        use_dora: whether magnitudes of rows are trained, too.
        modules_to_save: names of layers that are trained as a whole.
        adapter: name of the adapter.
        settings: more fields of `LoraSettings`, by name.

    Returns:
        The settings of the adapter.

    Raises:
        ValueError: an adapter of that name exists, a setting is invalid, or no layer has such a name.
    """
    targets = target_modules if isinstance(target_modules, str) else tuple(target_modules)
    chosen = LoraSettings(
        r,
        alpha,
        targets,
        dropout=dropout,
        use_rslora=use_rslora,
        use_dora=use_dora,
        modules_to_save=tuple(modules_to_save),
        **settings,
    )
    add_adapter(model, chosen, adapter)
    return chosen


def add_adapter(model: nn.Module, settings: LoraSettings, adapter: str = "default") -> None:
    """Add an adapter with these settings to a model, as `add_lora`.

    Raises:
        ValueError: an adapter of that name exists, or no layer has such a name.
    """
    if adapter in adapter_settings(model):
        raise ValueError(
            f"the model has an adapter {adapter!r} already: remove_adapter() it, or name another"
        )
    if not adapter or "." in adapter:
        raise ValueError(f"a name of an adapter is not empty and has no dot, got {adapter!r}")
    whole = [(path, layer) for path, layer in layers(model) if is_named(path, settings.modules_to_save)]
    targets = [
        (path, layer) for path, layer in find_targets(model, settings) if layer not in {*dict(whole).values()}
    ]
    experts = find_experts(model, settings)
    model.requires_grad_(False)
    for path, layer in targets:
        adapted = layer if isinstance(layer, LoraLayer) else _put(model, path, layer)
        adapted.add(adapter, settings.rank_of(path), settings.scaling_of(path), settings)
        adapted.train(model.training)
    for path, name in experts:
        layer = model.get_submodule(path)
        if not isinstance(layer, LoraExperts):
            layer = LoraExperts(layer)
            model.set_submodule(path, layer)
        full = f"{path}.{name}"
        layer.add_matrix(adapter, name, settings.rank_of(full), settings.scaling_of(full), settings)
    for path, layer in whole:
        if not isinstance(layer, SavedLayer):
            saved = SavedLayer(layer)
            model.set_submodule(path, saved)
        else:
            saved = layer
        saved.add(adapter)
    adapter_record(model)[adapter] = settings
    set_adapters(model, adapter)


def _put(model: nn.Module, path: str, layer: nn.Module) -> LoraLayer:
    kind = adapter_class(layer)
    assert kind is not None
    adapted = kind(layer)
    model.set_submodule(path, adapted)
    return adapted


def remove_adapter(model: nn.Module, adapter: str) -> None:
    """Remove an adapter from a model, in place; layers without adapters are as before `add_lora`.

    Raises:
        ValueError: the model has no such adapter.
    """
    find_adapter(model, adapter)
    for path, layer in list(adapter_layers(model)):
        if adapter in layer.adapter_names():
            layer.remove(adapter)
        if not layer.adapter_names():
            model.set_submodule(path, layer.original)
    del adapter_record(model)[adapter]
