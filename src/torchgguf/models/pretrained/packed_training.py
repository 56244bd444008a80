"""Warn of the training of packed models: their matrices have no gradients."""

import logging
from typing import Any

import torch
from torch import nn

from torchgguf.nn import PackedLayer

_logger = logging.getLogger(__name__)

_DONE = "_warned_of_packed_training"  # an attribute of models


def watch_training(model: nn.Module, training: bool) -> None:
    """Warn in the next forward that computes gradients, if packed layers are put to training."""
    if not training or vars(model).get(_DONE) or not any(isinstance(m, PackedLayer) for m in model.modules()):
        _unwatch(model)
    elif all(hook is not _warn for hook in model._forward_pre_hooks.values()):
        model.register_forward_pre_hook(_warn)


def _warn(model: nn.Module, arguments: Any) -> None:
    """Warn once, and watch no longer. It is a function of the module, so that models are still pickled."""
    if not (model.training and torch.is_grad_enabled()):
        return
    for part in model.modules():  # the model without its head is watched too
        _unwatch(part)
        vars(part)[_DONE] = True
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    packed = next((layer for layer in model.modules() if isinstance(layer, PackedLayer)), None)
    if packed is not None and learning and all(parameter.dim() < 2 for parameter in learning):
        _logger.warning(
            "%s is packed: training changes its norms and biases only, its matrices have no gradients; train "
            "LoRA adapters, such as PEFT's, or call model.dequantize() first, perhaps for some modules only",
            type(model).__name__,
        )


def _unwatch(module: nn.Module) -> None:
    for key, hook in [*module._forward_pre_hooks.items()]:
        if hook is _warn:
            del module._forward_pre_hooks[key]
