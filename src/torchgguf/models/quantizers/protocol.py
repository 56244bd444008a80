"""Where methods of quantization plug in: packing weights while a checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.nn import PackedLayer

if TYPE_CHECKING:
    from torchgguf.models.pretrained.model import PreTrainedModel


@runtime_checkable
class QuantizationConfig(Protocol):
    """What `quantization_config=` of `from_pretrained` may be.

    Attributes:
        quant_method: how a config.json calls the method.
    """

    quant_method: ClassVar[str]

    def pack(self, model: PreTrainedModel, path: str, layer: nn.Module) -> nn.Module:
        """Return what shall be in the place of a layer: another that holds its weights packed, or itself.

        Args:
            model: that the layer is of; not all of it need be there yet.
            path: name of the layer in it.
            layer: any module with parameters of its own, all of them read, on the device and in the dtype of
                the model. A head that shares the weights of the embedding is never asked about: it is made of
                what the embedding has become.
        """
        ...


def refuse_packed(values: Mapping[str, Any], place: object) -> None:
    """Refuse the config of a checkpoint that was saved packed.

    Raises:
        CheckpointError: naming the method.
    """
    if stated := values.get("quantization_config"):
        method = stated.get("quant_method", stated) if isinstance(stated, Mapping) else stated
        raise CheckpointError(
            f"{place} was saved quantized by {method}, which cannot be read: take the checkpoint that it was "
            "made from (quantization_config= packs that), or a GGUF file"
        )


def check_savable(path: str, layer: nn.Module) -> None:
    """Refuse a layer whose weights another library has packed: only that library can read them.

    Raises:
        ValueError: naming the layer and the library.
    """
    if isinstance(layer, PackedLayer) or all(p.is_floating_point() for p in layer.parameters(recurse=False)):
        return
    library = type(layer).__module__.partition(".")[0]
    raise ValueError(
        f"{path} is packed by {library}, which cannot be saved: load the checkpoint without it, and save that"
    )
