"""Convert a GGUF file to a Hugging Face checkpoint: a folder that transformers and vLLM can load."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Unpack

import torch

from torchgguf.container import GGUFFile, TensorType, open_gguf
from torchgguf.container.tensor_types import storage_dtype
from torchgguf.conversion.layers import PassingLayers
from torchgguf.generation import GenerationConfig
from torchgguf.hub import HubOptions, find_gguf
from torchgguf.models import registry
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import floating_dtype
from torchgguf.models.io.assembling import Filling, open_model
from torchgguf.models.io.card_reading import MODEL_CARD
from torchgguf.models.io.checkpoint_writing import save_checkpoint
from torchgguf.models.io.description import model_card
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.supply import GGUFSupply
from torchgguf.tokenization import Tokenizer
from torchgguf.tokenization.sources.files import TOKENIZER_FILES

_NO_TOKENIZER = "no_vocab"  # the name that llama.cpp's converter writes


def convert_to_checkpoint(
    place: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    gguf_file: str | None = None,
    dtype: torch.dtype | str = "auto",
    max_shard_size: int | str = "50GB",
    tokenizer: bool = True,
    **hub: Unpack[HubOptions],
) -> torch.dtype:
    """Convert a GGUF file to a folder with config.json, model.safetensors and the files that belong to them.

    One layer is unpacked at a time, regardless of the size of the model. All files appear when the last is
    complete. Then they replace an earlier checkpoint in the folder, and its tokenizer if there is a new one.
    Other files in the folder stay, and so does an existing model card.

    Args:
        place: the file; or a folder or a repository of the Hub that contains `gguf_file`.
        folder: the folder to write; it is created if it does not exist.
        gguf_file: the name of the file in `place`; for a split model, any of its files.
        dtype: the dtype of the weights. `"auto"` keeps float16 or bfloat16 if all matrices of the file have
            it and it represents all other weights exactly. Otherwise it is float32, to which only F64 loses.
        max_shard_size: the largest size of a weights file in bytes, or as a text such as `"5GB"`.
        tokenizer: whether to write the tokenizer of the file, if it has one; otherwise tokenizer files in the
            folder stay.
        hub: options for downloads.

    Returns:
        The dtype of the weights.

    Raises:
        GGUFError: the file is invalid, or its architecture is unsupported.
        TokenizerError: its tokenizer is unsupported.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
        OSError: the disk is full, or the system refuses; nothing was changed.
        ValueError: `dtype` or `max_shard_size` is invalid, or finite weights are too large for `dtype` (the
            message names the tensor).
    """
    with open_gguf(find_gguf(place, gguf_file, **hub)) as file:
        model_class = registry.architecture_of_file(file).main_class
        chosen = _exact_dtype(file, model_class.architecture) if dtype == "auto" else floating_dtype(dtype)
        options = LoadOptions(dtype=chosen)
        supply = GGUFSupply(model_class, file, options, passing=True)
        opened = open_model(model_class, supply, options)
        model = opened.model
        stated = supply.generation_config() or GenerationConfig.from_model_config(supply.config)
        vars(model)["generation_config"] = stated
        tokenizer_files = _tokenizer_files(file) if tokenizer else {}
        more = tokenizer_files | _model_card(file, Path(folder))
        layers = PassingLayers(opened, Filling(chosen))
        save_checkpoint(model, Path(folder), max_shard_size, chosen, layers=layers, more=more)
        if tokenizer_files:
            _remove_older_tokenizer(Path(folder), tokenizer_files)
    return chosen


def _exact_dtype(file: GGUFFile, architecture: Architecture) -> torch.dtype:
    """Return the narrowest dtype that represents all weights of the file exactly."""
    wide = [name for name, info in file.tensors.items() if info.type is TensorType.F32]
    types = {info.type for info in file.tensors.values()} - {TensorType.F32}
    if types not in ({TensorType.F16}, {TensorType.BF16}):
        return torch.float32
    half = storage_dtype(types.pop())
    for name in wide:
        if name not in architecture.config_tensors:
            exact = torch.equal(file[name].to(half).float(), file[name])
            file.release(name)
            if not exact:
                return torch.float32
    return half


def _remove_older_tokenizer(folder: Path, written: Mapping[str, bytes]) -> None:
    """Remove files of an earlier tokenizer that would be read as part of the new one."""
    for pattern in TOKENIZER_FILES:
        for path in folder.glob(pattern):
            if path.relative_to(folder).as_posix() not in written:
                path.unlink()


def _model_card(file: GGUFFile, folder: Path) -> dict[str, bytes]:
    """Return the contents of a model card by its name, unless the folder has one already."""
    card = None if (folder / MODEL_CARD).exists() else model_card(file.metadata)
    return {} if card is None else {MODEL_CARD: card.encode(errors="replace")}


def _tokenizer_files(file: GGUFFile) -> dict[str, bytes]:
    """Return the contents of the tokenizer files by their names."""
    if file.metadata.get("tokenizer.ggml.model", _NO_TOKENIZER) == _NO_TOKENIZER:
        return {}
    return {name: text.encode() for name, text in Tokenizer.from_gguf(file).file_contents().items()}
