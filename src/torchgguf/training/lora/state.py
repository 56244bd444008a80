"""The parameters of one adapter, by the names that PEFT's files have after `base_model.model.`."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from torchgguf.training.lora.switching import find_adapter
from torchgguf.training.lora.targets import adapter_layers


def _parameters(model: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    find_adapter(model, adapter)
    return {
        f"{path}.{name}": parameter
        for path, layer in adapter_layers(model)
        for name, parameter in layer.adapter_parameters(adapter)
    }


def adapter_state_dict(model: nn.Module, adapter: str = "default") -> dict[str, Tensor]:
    """Return the tensors of an adapter, such as `model.layers.0.self_attn.q_proj.lora_A.weight`.

    They share memory with the model. PEFT's files have the same names after `base_model.model.`.

    Raises:
        ValueError: the model has no such adapter.
    """
    return {name: parameter.detach() for name, parameter in _parameters(model, adapter).items()}


def load_adapter_state_dict(model: nn.Module, state: Mapping[str, Tensor], adapter: str = "default") -> None:
    """Copy tensors into an adapter of the same settings, in place.

    Args:
        model: a model with this adapter.
        state: tensors as by `adapter_state_dict`.
        adapter: its name.

    Raises:
        ValueError: the model has no such adapter; or names or shapes differ, the first of which is named.
    """
    parameters = _parameters(model, adapter)
    for name in sorted({*parameters, *state}):
        if name not in state:
            raise ValueError(f"adapter {adapter!r}: the state lacks {name}")
        if name not in parameters:
            raise ValueError(f"adapter {adapter!r} has no parameter {name}")
        if state[name].shape != parameters[name].shape:
            expected, got = tuple(parameters[name].shape), tuple(state[name].shape)
            raise ValueError(f"adapter {adapter!r}: {name} has shape {expected}, in the state {got}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
