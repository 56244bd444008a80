"""The interface of methods of quantization, which pack weights while a checkpoint loads."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from torchgguf.models.core.model import Model


@runtime_checkable
class QuantizationConfig(Protocol):
    """A value of `quantization_config=` of `from_pretrained`.

    Attributes:
        quant_method: name of the method in config.json.
    """

    quant_method: ClassVar[str]

    def pack(self, model: Model, path: str, layer: nn.Module) -> nn.Module:
        """Return the layer that replaces a layer: one with packed weights, or the layer itself.

        Args:
            model: the model, which may not be loaded completely.
            path: name of the layer in the model.
            layer: a module with parameters of its own, all of them loaded, on the device and in the dtype of
                the model. A head that shares the weights of the embedding is not packed by this: it is made
                from the embedding afterwards.
        """
        ...
