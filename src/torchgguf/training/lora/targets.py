"""Which layers of a model an adapter changes."""

import re
from collections.abc import Iterator

from torch import nn

from torchgguf.models.core.model import Model
from torchgguf.nn import Gate
from torchgguf.training.lora.embedding import EMBEDDINGS, LoraEmbedding
from torchgguf.training.lora.experts import EXPERT_LAYERS, LoraExperts
from torchgguf.training.lora.latent import LATENT_PROJECTIONS, LoraLatentProjection
from torchgguf.training.lora.layer import AdapterLayer, LoraLayer
from torchgguf.training.lora.linear import LINEAR_LAYERS, LoraLinear
from torchgguf.training.lora.settings import ALL_LINEAR, LoraSettings

# The class that adapts a layer: the first row that matches.
ADAPTERS: tuple[tuple[tuple[type[nn.Module], ...], type[LoraLayer]], ...] = (
    (LATENT_PROJECTIONS, LoraLatentProjection),
    (LINEAR_LAYERS, LoraLinear),
    (EMBEDDINGS, LoraEmbedding),
)


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of a model by their paths; of adapted ones, those that stand in their place."""
    adapted: list[str] = []
    for path, layer in model.named_modules():
        if path.startswith(tuple(f"{inside}." for inside in adapted)):
            continue
        if isinstance(layer, AdapterLayer):
            adapted.append(path)
        yield path, layer


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """Yield the adapted layers of a model by their paths."""
    for path, layer in model.named_modules():
        if isinstance(layer, AdapterLayer):
            yield path, layer


def find_targets(model: nn.Module, settings: LoraSettings) -> list[tuple[str, nn.Module]]:
    """List the layers that an adapter changes, by their paths.

    Raises:
        ValueError: there are none, or one is of a kind that cannot be adapted; the message names it.
    """
    found = []
    head = model.get_output_embeddings() if isinstance(model, Model) else None
    for path, layer in layers(model):
        if settings.exclude_modules and is_named(path, settings.exclude_modules):
            continue
        original = layer.original if isinstance(layer, AdapterLayer) else layer
        if settings.target_modules == ALL_LINEAR:
            if isinstance(original, LINEAR_LAYERS) and layer is not head and not _is_router(original):
                found.append((path, layer))
        elif is_named(path, settings.target_modules):
            if adapter_class(original) is None:
                raise ValueError(f"{path} is a {type(original).__name__}, which LoRA cannot change")
            found.append((path, layer))
    if not found and not settings.target_parameters:
        raise ValueError(
            f"no layer of the model is named by target_modules {settings.target_modules!r}; "
            f"linear layers are: {', '.join(linear_names(model))}"
        )
    return found


def find_experts(model: nn.Module, settings: LoraSettings) -> list[tuple[str, str]]:
    """List the experts' matrices that an adapter changes: path of the experts, and name of the matrix.

    Raises:
        ValueError: `target_parameters` names none.
    """
    found = []
    for path, layer in layers(model):
        original = layer.base_layer if isinstance(layer, LoraExperts) else layer
        if isinstance(original, EXPERT_LAYERS):
            for name in original.parameters_of_plain:
                if is_named(f"{path}.{name}", settings.target_parameters):
                    found.append((path, name))
    if settings.target_parameters and not found:
        raise ValueError(
            f"no matrix of experts is named by target_parameters {settings.target_parameters!r}; "
            "names are such as 'experts.down_proj'"
        )
    return found


def adapter_class(layer: nn.Module) -> type[LoraLayer] | None:
    """Return the class that adapts a layer, or None."""
    return next((adapter for kinds, adapter in ADAPTERS if isinstance(layer, kinds)), None)


def linear_names(model: nn.Module) -> list[str]:
    """List the last parts of the names of linear layers."""
    return sorted(
        {path.rpartition(".")[2] for path, layer in layers(model) if isinstance(layer, LINEAR_LAYERS)}
    )


def is_named(path: str, names: tuple[str, ...] | str) -> bool:
    """Return whether a path is one of the names, or ends with one after a dot; or matches an expression."""
    if isinstance(names, str):
        return re.fullmatch(names, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def _is_router(layer: nn.Module) -> bool:
    """Return whether a layer chooses experts: a gate with one output weighs a shared expert instead."""
    return isinstance(layer, Gate) and layer.out_features > 1
