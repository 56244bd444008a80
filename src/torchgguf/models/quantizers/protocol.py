"""Where methods of quantization plug in: packing weights while a checkpoint is loaded."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from torchgguf.models.core.model import Model


@runtime_checkable
class QuantizationConfig(Protocol):
    """What `quantization_config=` of `from_pretrained` may be.

    Attributes:
        quant_method: how a config.json calls the method.
    """

    quant_method: ClassVar[str]

    def pack(self, model: Model, path: str, layer: nn.Module) -> nn.Module:
        """Return what shall be in the place of a layer: another that holds its weights packed, or itself.

        Args:
            model: that the layer is of; not all of it need be there yet.
            path: name of the layer in it.
            layer: any module with parameters of its own, all of them read, on the device and in the dtype of
                the model. A head that shares the weights of the embedding is never asked about: it is made of
                what the embedding has become.
        """
        ...
