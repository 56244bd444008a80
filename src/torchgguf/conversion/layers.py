"""Load one layer of a model at a time; the others take no memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


class PassingLayers:
    """The layers of a model on the meta device. One of them has its parameters at any time.

    Args:
        model: the model; all other layers stay empty.
        fill: loads the own parameters of a layer, called with its path and the layer.
    """

    def __init__(self, model: nn.Module, fill: Callable[[str, nn.Module], None]) -> None:
        self._model, self._fill = model, fill
        self._path: str | None = None
        self._empty: dict[str, nn.Parameter] = {}

    @contextmanager
    def __call__(self, path: str) -> Iterator[nn.Module]:
        """Yield the layer at `path` with all its own parameters, for the duration of a block."""
        layer = self._model.get_submodule(path)
        if path != self._path:
            self.release()
            self._path, self._empty = path, dict(layer.named_parameters(recurse=False))
            self._fill(path, layer)
        yield layer

    def release(self) -> None:
        """Remove the parameters of the loaded layer."""
        if self._path is not None:
            layer = self._model.get_submodule(self._path)
            for name, parameter in self._empty.items():
                layer.register_parameter(name, parameter)
        self._path = None
