"""Adapters as PEFT's folders contain them: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from torch import Tensor

from torchgguf.container import LazyTensor
from torchgguf.container.atomic import atomic_write
from torchgguf.container.errors import brief
from torchgguf.hub import HubOptions, find_files
from torchgguf.models.io.checkpoint import open_tensors
from torchgguf.models.io.checkpoint_writing import write_safetensors
from torchgguf.models.io.limits import CheckpointError, read_json
from torchgguf.training.adapters.changes import AdapterError
from torchgguf.training.lora import LoraSettings

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of names in PEFT's files
_COPY = ".base_layer.weight"  # of an embedding or head that PEFT saves beside its adapter

# Fields of PEFT's config that change what an adapter computes, with the values that ask for nothing.
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "bias": ("none", None),
    "kasa_config": (None,),
    "layer_replication": (None, []),
    "lora_bias": (False, None),
    "monteclora_config": (None,),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None, False),
    "use_qalora": (False, None),
    "velora_config": (None,),
}
# Fields of PEFT's config by those of `LoraSettings`, where names differ.
_RENAMED = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
_NAMES = {field.name: _RENAMED.get(field.name, field.name) for field in fields(LoraSettings)}


class PeftAdapter(NamedTuple):
    """An adapter by PEFT's names.

    Attributes:
        settings: what it consists of.
        tensors: by their names in the model, such as `model.layers.0.mlp.up_proj.lora_A.weight`.
        base: the model that it was trained with, as `base_model_name_or_path` states it, or None.
    """

    settings: LoraSettings
    tensors: Mapping[str, Tensor]
    base: str | None = None


def read_peft_adapter(place: str | PathLike[str], **hub: Unpack[HubOptions]) -> PeftAdapter:
    """Read the adapter in a folder or in a repository of the Hub.

    Args:
        place: the folder or the repository.
        hub: options for downloads.

    Raises:
        AdapterError: the adapter is not LoRA, or changes more than low-rank matrices do; the message names
            the field.
        CheckpointError: a file is broken.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
    """
    config, weights = find_files(place, [_CONFIG, _WEIGHTS], **hub)
    values = read_json(config)
    settings = _settings(values, config)
    tensors = {
        name.removeprefix(_PREFIX): tensor.load()
        for name, tensor in open_tensors(weights).items()
        if not name.endswith(_COPY)
    }
    base = values.get("base_model_name_or_path")
    return PeftAdapter(settings, tensors, base if isinstance(base, str) and base else None)


def _settings(values: Mapping[str, Any], config: Path) -> LoraSettings:
    if (kind := values.get("peft_type")) != "LORA":
        raise AdapterError(f"{config}: peft_type is {brief(kind)}, but only LORA is supported")
    for name, neutral in _UNSUPPORTED.items():
        if (value := values.get(name, neutral[0])) not in neutral:
            raise AdapterError(f"{config}: {name}={brief(value)} is unsupported")
    stated: dict[str, Any] = {
        ours: tuple(value) if isinstance(value, list) else value
        for ours, name in _NAMES.items()
        if (value := values.get(name)) is not None
    }
    try:
        return LoraSettings(**stated)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{config} is invalid: {error}") from None


def write_peft_adapter(folder: str | PathLike[str], adapter: PeftAdapter, task_type: str | None) -> None:
    """Write an adapter to a folder, which is created if it does not exist. Both files appear when complete.

    Args:
        folder: the folder.
        adapter: its tensors keep their dtypes.
        task_type: PEFT's name of the task, such as `"CAUSAL_LM"`, or None.

    Raises:
        OSError: the disk is full, or the system refuses; older files are as they were.
    """
    stated = {name: getattr(adapter.settings, ours) for ours, name in _NAMES.items()}
    for name in ("target_modules", "exclude_modules", "modules_to_save", "target_parameters"):
        if isinstance(stated[name], tuple):
            stated[name] = list(stated[name]) or (None if name != "target_modules" else [])
    neutral = {name: values[0] for name, values in _UNSUPPORTED.items()}
    values = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": adapter.base,
        "inference_mode": True,
        **{name: dict(value) if isinstance(value, Mapping) else value for name, value in stated.items()},
        **neutral,
    }
    tensors = {
        _PREFIX + name: LazyTensor(tuple(tensor.shape), tensor.dtype, partial(_same, tensor))
        for name, tensor in adapter.tensors.items()
    }
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:  # when both are written, they are renamed, the last one first
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        files.enter_context(atomic_write(place / _CONFIG)).write(text.encode())
        write_safetensors(files.enter_context(atomic_write(place / _WEIGHTS)), tensors)


def _same(tensor: Tensor) -> Tensor:
    return tensor
