"""PEFT adapts packed layers, and GPT-2's projections, with LoRA as it adapts layers of its own list."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from peft.tuners import tuners_utils
from peft.tuners.lora.model import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from torchgguf.integrations.peft_layers import ADAPTED_AS_LINEAR, adapt
from torchgguf.nn import Conv1D, PackedLayer
from torchgguf.nn.unpacking import containing, outline, packed_layers, unpack_layers

_ALL_LINEAR = "all-linear"


def register_layers() -> None:
    """Let every config of PEFT know the layers here, before its adapters are put into a model."""
    tuner: Any = LoraModel
    prepare, inject = tuner._prepare_model, tuner._inject_parameters

    @wraps(prepare)
    def prepare_ours(self: Any, peft_config: Any, model: nn.Module) -> None:
        prepare(self, peft_config, model)
        peft_config._register_custom_module({PackedLayer: adapt, Conv1D: adapt})
        _unpack_saved(peft_config, model)

    @wraps(inject)
    def inject_into_packed(self: Any, *args: Any, model: nn.Module, **options: Any) -> list[str]:
        with _plain_parameters(model):
            names: list[str] = inject(self, *args, model=model, **options)
        return names

    tuner._prepare_model, tuner._inject_parameters = prepare_ours, inject_into_packed
    _teach_all_linear()


def _teach_all_linear() -> None:
    """Let `"all-linear"` name packed layers too, and no head of our classes, as of transformers'."""
    find = tuners_utils._maybe_include_all_linear_layers

    @wraps(find)
    def find_all(peft_config: Any, model: nn.Module) -> Any:
        if str(getattr(peft_config, "target_modules", None)).lower() != _ALL_LINEAR:
            return find(peft_config, model)
        config: Any = find(peft_config, model)
        find_head = getattr(model, "get_output_embeddings", None)
        head = None if find_head is None else find_head()
        layers = dict(model.named_modules())
        adapted = tuple(f"{path}." for path, layer in layers.items() if isinstance(layer, BaseTunerLayer))
        config.target_modules |= {
            path
            for path, layer in layers.items()
            if isinstance(layer, ADAPTED_AS_LINEAR)
            if not path.startswith(adapted)
        }
        config.target_modules -= {path for path, layer in layers.items() if layer is head}
        return config

    for name, module in [*sys.modules.items()]:  # PEFT's modules import the function from each other
        if name.startswith("peft.") and getattr(module, find.__name__, None) is find:
            setattr(module, find.__name__, find_all)


def _unpack_saved(config: Any, model: nn.Module) -> None:
    """Unpack the layers that are trained and saved as a whole."""
    saved = (*(config.modules_to_save or ()),)
    found = [path for path in packed_layers(model) if any(each.endswith(saved) for each in containing(path))]
    unpack_layers(model, found, getattr(model, "dtype", torch.float32))


@contextmanager
def _plain_parameters(model: nn.Module) -> Iterator[None]:
    """Let packed layers show the parameters of their plain forms, by the names, shapes and dtypes of those.

    So `target_parameters` means the same for packed experts as for plain ones, and so do the adapters.
    """
    packed = [layer for layer in model.modules() if isinstance(layer, PackedLayer)]
    own = [layer._parameters for layer in packed]
    try:
        for layer, parameters in zip(packed, own, strict=True):
            device = next(iter(layer.parameters())).device
            vars(layer)["_parameters"] = {
                name: nn.Parameter(torch.empty((), device=device).expand(value.shape))
                for name, value in outline(layer).named_parameters(recurse=False)
            } | {name: value for name, value in parameters.items() if value is None}
        yield
    finally:
        for layer, parameters in zip(packed, own, strict=True):
            vars(layer)["_parameters"] = parameters
