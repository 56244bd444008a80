"""Load one layer of a model at a time; the others take no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from torchgguf.models.io.assembling import Filling, OpenModel, fill_layer


class PassingLayers:
    """The layers of a model on the meta device. One of them has its parameters at any time.

    Args:
        opened: the model; all other layers stay empty.
        filling: how the tensors of a layer are loaded; no layer is packed.
    """

    def __init__(self, opened: OpenModel[Any], filling: Filling) -> None:
        self._opened, self._filling = opened, filling
        model, tensors = opened.model, opened.match.tensors
        if (head := model.tied_head) is not None:  # it is filled as the embedding is, whose weights it shares
            paths = {layer: path for path, layer in model.named_modules()}
            tensors[paths[head]] = tensors[paths[model.get_input_embeddings()]]
        self._path: str | None = None
        self._empty: dict[str, nn.Parameter] = {}

    @contextmanager
    def __call__(self, path: str) -> Iterator[nn.Module]:
        """Yield the layer at `path` with all its own parameters, for the duration of a block."""
        layer = self._opened.model.get_submodule(path)
        if path != self._path:
            self.release()
            self._path, self._empty = path, dict(layer.named_parameters(recurse=False))
            fill_layer(self._opened, path, self._filling)
        yield layer

    def release(self) -> None:
        """Remove the parameters of the loaded layer."""
        if self._path is not None:
            layer = self._opened.model.get_submodule(self._path)
            for name, parameter in self._empty.items():
                layer.register_parameter(name, parameter)
        self._path = None
