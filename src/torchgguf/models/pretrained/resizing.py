"""Resize a vocabulary: add or drop rows of the embedding and of the head."""

from __future__ import annotations

import torch
from torch import nn

from torchgguf.models.core.model import Model
from torchgguf.nn import PackedLayer


def resize_vocabulary(model: Model, size: int | None, multiple: int | None) -> nn.Module:
    """Resize; arguments and errors are those of `PreTrainedModel.resize_token_embeddings`."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    size = model.config.vocab_size if size is None else size
    if multiple is not None:
        if multiple < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {multiple}")
        size = -(-size // multiple) * multiple
    if size < 1:
        raise ValueError(f"the vocabulary must contain at least 1 token, got {size}")
    layers = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    base = model.base_model
    layers += [getattr(base, name) for name in base.further_tables if hasattr(base, name)]
    if packed := [layer for layer in layers if isinstance(layer, PackedLayer)]:
        raise ValueError(f"resizing packed rows is unsupported: call dequantize() first ({packed[0]!r})")
    for layer in layers:
        assert isinstance(layer, nn.Embedding | nn.Linear)
        _resize_rows(layer, size)
    model.config.vocab_size = size
    for field in base.further_tables.values():
        setattr(model.config, field, size)
    model.tie_weights()
    return embedding


def _resize_rows(layer: nn.Embedding | nn.Linear, size: int) -> None:
    """Keep the first rows; new ones are the mean of all.

    Then a new token is as likely as an average one, and the others keep nearly all of their probability
    (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
    """
    for name, parameter in [*layer.named_parameters(recurse=False)]:  # a head may have a bias
        old = parameter.detach()
        mean = old.mean(dim=0, keepdim=True, dtype=torch.float32).to(old.dtype)
        rows = torch.cat((old[:size], mean.expand(max(0, size - len(old)), *old.shape[1:])))
        setattr(layer, name, nn.Parameter(rows, requires_grad=parameter.requires_grad))
    if isinstance(layer, nn.Embedding):
        layer.num_embeddings = size
        if layer.padding_idx is not None and layer.padding_idx >= size:
            layer.padding_idx = None
    else:
        layer.out_features = size
