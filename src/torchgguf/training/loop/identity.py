"""What makes two runs the same: the model, the data, and the settings that results depend on."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from torchgguf.training.data import TrainingData
from torchgguf.training.loop.settings import TrainingSettings

_COMPARED = 64  # numbers or bytes of each frozen parameter


def identity_of(model: nn.Module, data: TrainingData, settings: TrainingSettings) -> dict[str, Any]:
    """Return what a run is, in the form of JSON.

    Args:
        model: before it is trained or divided among processes.
        data: to train on.
        settings: how to train.
    """
    return {
        "model": _fingerprint(model),
        "data": data.fingerprint,
        "settings": settings.of_results(),
    }


def difference(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return what differs between two runs, in words, or None."""
    for part, value in current.items():
        other = stored.get(part)
        if other == value:
            continue
        if not (isinstance(value, dict) and isinstance(other, dict)):
            return part
        changes = [f"{name}={other.get(name)!r}" for name in value if other.get(name) != value[name]]
        return f"{part} ({', '.join(changes)})"
    return None


def _fingerprint(model: nn.Module) -> str:
    """Return a hash of the names and shapes of all parameters, and of the beginnings of frozen ones."""
    digest = sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.requires_grad}".encode())
        if not parameter.requires_grad:
            start = parameter.detach().flatten()[:_COMPARED].cpu().contiguous()
            digest.update(start.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
