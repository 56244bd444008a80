"""GGUF files of a tiny model, as they should be and with something changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

from torchgguf.container import TensorSource, TensorType, open_gguf, write_gguf


def edited(
    original: Path,
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, torch.Tensor | TensorSource | None] | None = None,
) -> Path:
    """Write a copy with other values and tensors; None takes one away."""
    with open_gguf(original) as file:
        values, sources = file.metadata.copy(), dict(file.sources())
        for key, value in (metadata or {}).items():
            values.pop(key, None)
            if value is not None:
                values[key] = value
        for name, tensor in (tensors or {}).items():
            sources.pop(name, None)
            if tensor is not None:
                sources[name] = tensor if isinstance(tensor, TensorSource) else TensorSource.of(tensor)
        write_gguf(path, values, sources)
    return path


def packed(weights: torch.Tensor, name: str) -> TensorSource:
    """Weights as gguf-py packs them."""
    blocks = torch.from_numpy(gguf.quants.quantize(weights.numpy(), gguf.GGMLQuantizationType[name]))
    blocks = blocks.view(torch.bfloat16) if name == "BF16" else blocks
    return TensorSource(tuple(weights.shape), TensorType[name], lambda: blocks)
