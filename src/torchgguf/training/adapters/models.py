"""Load adapters into a model, and save them."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Unpack

from torchgguf.hub import HubOptions
from torchgguf.models.core.model import Model
from torchgguf.training.adapters.bases import Base
from torchgguf.training.adapters.gguf_files import FileAdapter, write_gguf_adapter
from torchgguf.training.adapters.peft_changes import named_targets
from torchgguf.training.adapters.peft_files import PeftAdapter, write_peft_adapter
from torchgguf.training.adapters.places import read_adapter
from torchgguf.training.lora import (
    LoraSettings,
    adapter_settings,
    adapter_state_dict,
    load_adapter_state_dict,
    remove_adapter,
)
from torchgguf.training.lora.adding import add_adapter

# PEFT's names of tasks.
_TASKS = {"causal_lm": "CAUSAL_LM"}


def load_adapter(
    model: Model,
    place: str | PathLike[str],
    adapter: str = "default",
    *,
    gguf_file: str | None = None,
    **hub: Unpack[HubOptions],
) -> LoraSettings:
    """Add an adapter from files to a model, packed or plain.

    It is the only one that applies then; `set_adapters` chooses others, with factors.

    Args:
        model: the model that the adapter belongs to.
        place: a folder of PEFT, a repository of the Hub, or a GGUF file.
        adapter: the name that the adapter gets in the model.
        gguf_file: the name of a GGUF file in the folder or repository.
        hub: options for downloads.

    Returns:
        The settings of the adapter.

    Raises:
        AdapterError: it is not LoRA, or does not belong to the model; the message names what differs.
        ValueError: the model has an adapter of that name, or a layer that cannot be adapted.
        GGUFError, CheckpointError: a file is broken.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
    """
    read = read_adapter(place, gguf_file, **hub)
    if isinstance(read, FileAdapter):
        read = Base.of(model).in_model(read)
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    add_adapter(model, read.settings, adapter)
    try:
        load_adapter_state_dict(model, read.tensors, adapter)
    except BaseException:
        remove_adapter(model, adapter)
        for parameter, has_gradient in before:
            parameter.requires_grad_(has_gradient)
        raise
    return read.settings


def save_adapter(model: Model, path: str | PathLike[str], adapter: str = "default") -> None:
    """Save an adapter of a model, for PEFT or for llama.cpp.

    Args:
        model: a model with this adapter.
        path: a `.gguf` file, or a folder for PEFT's files.
        adapter: its name in the model.

    Raises:
        ValueError: the model has no such adapter.
        AdapterError: GGUF does not support what the adapter contains, such as DoRA; the message names it.
        GGUFError, OSError: the disk is full, or the system refuses; older files are as they were.
    """
    tensors = adapter_state_dict(model, adapter)
    settings = named_targets(model, adapter_settings(model)[adapter], tensors)
    whole = PeftAdapter(settings, tensors, model.name_or_path or None)
    if fspath(path).endswith(".gguf"):
        base = Base.of(model)
        write_gguf_adapter(path, FileAdapter(base.architecture, base.in_file(whole), Path(path).stem))
    else:
        write_peft_adapter(path, whole, _TASKS.get(model.task or ""))
