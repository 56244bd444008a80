"""Convert an adapter from PEFT's files to a GGUF file, and back."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Unpack

from torchgguf.hub import HubOptions
from torchgguf.training.adapters.bases import Base
from torchgguf.training.adapters.gguf_files import FileAdapter, write_gguf_adapter
from torchgguf.training.adapters.peft_files import PeftAdapter, write_peft_adapter
from torchgguf.training.adapters.places import read_adapter

_TASK = "CAUSAL_LM"


def convert_adapter(
    place: str | PathLike[str],
    out: str | PathLike[str],
    base: str | PathLike[str],
    *,
    gguf_file: str | None = None,
    base_file: str | None = None,
    **hub: Unpack[HubOptions],
) -> None:
    """Convert a PEFT adapter to a GGUF file of llama.cpp, or such a file to a folder of PEFT.

    Nothing is rounded, except that GGUF has one factor for all matrices: where ranks and factors differ from
    layer to layer, or with rsLoRA, `lora_b` is multiplied by the quotient.

    Args:
        place: a folder of PEFT, a repository of the Hub, or a GGUF file.
        out: the GGUF file to write for a PEFT adapter, the folder for a GGUF file.
        base: the model that the adapter belongs to, a GGUF file or a Hugging Face folder or a repository.
            Only its description is read.
        gguf_file: the name of the adapter in a folder or repository.
        base_file: the name of the model in a folder or repository.
        hub: options for downloads.

    Raises:
        AdapterError: the adapter is not LoRA, does not belong to the model, or contains what the other format
            does not support; the message names it.
        GGUFError, CheckpointError: a file is broken, or the disk is full; an older file is as it was.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
    """
    adapter = read_adapter(place, gguf_file, **hub)
    model = Base.open(base, base_file, **hub)
    if isinstance(adapter, PeftAdapter):
        name = Path(place).resolve().name
        write_gguf_adapter(out, FileAdapter(model.architecture, model.in_file(adapter), name))
    else:
        write_peft_adapter(out, model.in_model(adapter), _TASK)
