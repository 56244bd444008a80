"""Which adapters of a model apply."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from torch import nn

from torchgguf.training.lora.settings import LoraSettings
from torchgguf.training.lora.targets import adapter_layers

_SETTINGS = "lora_settings"  # an attribute of models with adapters


def adapter_settings(model: nn.Module) -> Mapping[str, LoraSettings]:
    """Return the settings of a model's adapters, by their names."""
    return MappingProxyType(vars(model).get(_SETTINGS, {}))


def adapter_record(model: nn.Module) -> dict[str, LoraSettings]:
    """Return the record of a model's adapters, to be changed."""
    record: dict[str, LoraSettings] = vars(model).setdefault(_SETTINGS, {})
    return record


def find_adapter(model: nn.Module, adapter: str) -> LoraSettings:
    """Return the settings of an adapter.

    Raises:
        ValueError: the model has no such adapter; the message lists those that it has.
    """
    record = adapter_settings(model)
    if adapter not in record:
        known = ", ".join(map(repr, record)) or "none: add_lora() adds one"
        raise ValueError(f"the model has no adapter {adapter!r}; its adapters: {known}")
    return record[adapter]


def set_adapters(model: nn.Module, adapters: str | Sequence[str] | Mapping[str, float]) -> None:
    """Apply these adapters of a model, in place, and train these only.

    Args:
        model: a model with adapters.
        adapters: a name, several names, or names with factors on what the adapters add. An empty sequence
            applies none.

    Raises:
        ValueError: the model has no such adapter, or its adapters are merged.
    """
    if isinstance(adapters, str):
        adapters = [adapters]
    factors = dict(adapters) if isinstance(adapters, Mapping) else dict.fromkeys(adapters, 1.0)
    for name in factors:
        find_adapter(model, name)
    for _, layer in adapter_layers(model):
        layer.set_active(factors)


@contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """Within the `with` statement, compute as without adapters."""
    before = [(layer, layer.active) for _, layer in adapter_layers(model)]
    for layer, _ in before:
        layer.active = {}
    try:
        yield
    finally:
        for layer, active in before:
            layer.active = active
