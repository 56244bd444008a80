"""Refuse weights that another library packed: they are neither loaded nor saved."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.nn import PackedLayer
from torchgguf.nn.foreign import packing_library


def refuse_packed(values: Mapping[str, Any], place: object, supported: Sequence[str] = ()) -> None:
    """Refuse the config of a checkpoint with packed weights.

    Args:
        values: of the config.
        place: names the checkpoint in the error.
        supported: methods of quantization that are not refused.

    Raises:
        CheckpointError: the config names a method of quantization.
    """
    if stated := values.get("quantization_config"):
        method = stated.get("quant_method", stated) if isinstance(stated, Mapping) else stated
        if method in supported:
            return
        raise CheckpointError(
            f"{place} is quantized by {method}, which is unsupported: load the checkpoint that it was made "
            "from (quantization_config= packs that), or a GGUF file"
        )


def check_savable(model: nn.Module) -> None:
    """Refuse a model with weights that another library packed, as floats too: only that library reads them.

    Raises:
        ValueError: there is such a layer; the message names it and the library.
    """
    for path, layer in model.named_modules():
        if isinstance(layer, PackedLayer) or (library := packing_library(layer)) is None:
            continue
        raise ValueError(
            f"{path} is packed by {library}, and saving that is unsupported: load the checkpoint without it"
        )
