"""Adding adapters to the weights that they stand beside."""

from torch import nn

from torchgguf.models.core.model import Model
from torchgguf.training.lora.layer import LoraLayer
from torchgguf.training.lora.switching import adapter_record
from torchgguf.training.lora.targets import adapter_layers


def merge_adapters(model: nn.Module) -> None:
    """Compute with weights to which the active adapters are added, in place, until `unmerge_adapters`.

    Packed layers with adapters get unpacked copies; blocks stay in memory, and come back as they were.
    """
    unmerge_adapters(model)
    for _, layer in adapter_layers(model):
        if isinstance(layer, LoraLayer) and layer.active:
            layer.merged_layer = [layer.merge()]


def unmerge_adapters(model: nn.Module) -> None:
    """Undo `merge_adapters`."""
    for _, layer in adapter_layers(model):
        if isinstance(layer, LoraLayer):
            layer.merged_layer = []


def merge_and_unload(model: nn.Module) -> nn.Module:
    """Add the active adapters to the weights, in place, and remove all adapters.

    Layers with adapters are plain afterwards; the others stay packed.

    Returns:
        The model.
    """
    tied = model.tied_head if isinstance(model, Model) else None
    for path, layer in list(adapter_layers(model)):
        model.set_submodule(path, layer.merge() if layer.active else layer.original)
    if tied is not None and isinstance(model, Model) and model.tied_head is None:
        model.config.tie_word_embeddings = False  # the head does not change with the embedding
    adapter_record(model).clear()
    return model
