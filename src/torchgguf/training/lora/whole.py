"""Layers of which an adapter contains a whole copy, trained and saved: PEFT's `modules_to_save`."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from torchgguf.training.lora.layer import AdapterLayer, plain_copy


class SavedLayer(AdapterLayer):
    """A layer and its copies, one for each adapter, of which the active one replaces the layer.

    Attributes:
        original_module: the layer.
        modules_to_save: the copies, by the name of the adapter.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original_module = original
        self.modules_to_save = nn.ModuleDict()
        self.active = {}

    def __getattr__(self, name: str) -> Any:
        """Return an attribute, such as `weight`, of the layer that is active."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("original_module", "modules_to_save", "active"):
                raise
            return getattr(self.current, name)

    @property
    def current(self) -> nn.Module:
        """The copy of the adapter that was activated last, or the layer."""
        for name in reversed(self.active):
            return self.modules_to_save[name]
        return self.original_module

    def forward(self, *args: Any, **options: Any) -> Any:
        """Do what the active layer does."""
        return self.current(*args, **options)

    def add(self, name: str) -> None:
        """Create a copy for an adapter."""
        self.modules_to_save[name] = plain_copy(self.original_module)

    def adapter_names(self) -> list[str]:
        """Return the names of the adapters of this layer."""
        return list(self.modules_to_save)

    def adapter_parameters(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield an adapter's parameters by their names in PEFT's files, after the path of the layer."""
        if name in self.modules_to_save:
            yield from self.modules_to_save[name].named_parameters()

    def remove(self, name: str) -> None:
        """Delete a copy."""
        self.active.pop(name, None)
        del self.modules_to_save[name]

    @property
    def original(self) -> nn.Module:
        """The layer without adapters."""
        return self.original_module

    def merge(self) -> nn.Module:
        """Return a copy of the layer that is active."""
        return plain_copy(self.current)
