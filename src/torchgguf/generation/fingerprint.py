"""What the steps of a model depend on beside its inputs: modules, where parameters lie, plain attributes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_MEMBERS = {"_parameters", "_buffers", "_modules", *_HOOKS}
_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device)

Fingerprint = tuple[Hashable, ...]


def obstacle(model: Any) -> str | None:
    """Return why a step of this model must run in Python, here and now; None: nothing stands against it."""
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return "a torch mode is active"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is enabled"
    if any(getattr(torch_module, name, None) for name in _GLOBAL_HOOKS):
        return "there are global hooks"
    if not isinstance(model, nn.Module):
        return "the model is no torch module"
    return None


def fingerprint(model: nn.Module) -> Fingerprint | str:
    """Return what tells whether a model's steps are what they were; or why they must run in Python.

    Values of parameters are not in it: a recorded step reads them anew.
    """
    found: list[Hashable] = [_frozen(vars(config), 2)] if (config := getattr(model, "config", None)) else []
    for module in model.modules():
        members = vars(module)
        if members["_forward_hooks"] or members["_forward_pre_hooks"]:
            return f"{type(module).__name__} has hooks"
        if "forward" in members:
            return f"the forward of a {type(module).__name__} is replaced"
        if members["training"]:
            return "the model is in training mode"
        found.extend((id(module), id(type(module).forward)))
        for tensor in (*members["_parameters"].values(), *members["_buffers"].values()):
            if tensor is not None:
                if tensor.device.type != "cpu":
                    return f"parameters are on {tensor.device}"
                found.append((tensor.data_ptr(), tensor.dtype))
        found.extend(_frozen(value, 2) for name, value in members.items() if name not in _MEMBERS)
    return tuple(found)


def _frozen(value: Any, depth: int) -> Hashable:
    """Return what tells whether an attribute is what it was."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return value.data_ptr()
    if depth and isinstance(value, dict):
        return tuple((str(key), _frozen(each, depth - 1)) for key, each in value.items())
    if depth and isinstance(value, list | tuple | set | frozenset):
        return tuple(_frozen(each, depth - 1) for each in value)
    return id(value)
