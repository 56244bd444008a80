"""Weights that another library has packed: they are not loaded, and not saved."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.nn import PackedLayer


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


def check_savable(model: nn.Module) -> None:
    """Refuse a model with weights that another library has packed: only that library can read them.

    Raises:
        ValueError: naming the layer and the library.
    """
    for path, layer in model.named_modules():
        if isinstance(layer, PackedLayer) or all(
            p.is_floating_point() for p in layer.parameters(recurse=False)
        ):
            continue
        library = type(layer).__module__.partition(".")[0]
        raise ValueError(
            f"{path} is packed by {library}, which cannot be saved: load the checkpoint without it, and save "
            "that"
        )
