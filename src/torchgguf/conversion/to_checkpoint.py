"""A GGUF file as a Hugging Face checkpoint: a folder that transformers and vLLM read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import nn

from torchgguf.container import GGUFError, GGUFFile, TensorType, open_gguf
from torchgguf.container.tensor_types import storage_dtype
from torchgguf.conversion.layers import PassingLayers
from torchgguf.generation import GenerationConfig
from torchgguf.hub import HubOptions, find_gguf
from torchgguf.models.architecture import Architecture
from torchgguf.models.auto import family_of_file
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.checkpoint_saving import save_checkpoint
from torchgguf.models.config import floating_dtype
from torchgguf.models.description import MODEL_CARD, model_card
from torchgguf.models.loading import Place, fill_place, open_model
from torchgguf.models.options import LoadOptions
from torchgguf.tokenization import Tokenizer
from torchgguf.tokenization.sources.files import TOKENIZER_FILES

# general.sampling.* -> field of generation_config.json; llama.cpp's converter reads them so
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
_NO_TOKENIZER = "no_vocab"  # as llama.cpp's converter calls it


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
    """Write the model in a GGUF file as config.json, model.safetensors and what else belongs to them.

    One layer is unpacked at a time, whatever the size of the model. All files appear together, when all are
    written; an earlier checkpoint in the folder is replaced then, with its tokenizer if a new one is written.
    Other files in it stay, a model card too.

    Args:
        place: the file; or a folder or a repository of the Hub, with `gguf_file` in it.
        folder: where to. It is made if need be.
        gguf_file: name of the file in there; of a split model, any of its files.
        dtype: of the weights. `"auto"`: the one that the file's matrices have, if that is one for all of them
            and nothing else in the file needs a wider one; else float32, which loses nothing but
            of F64.
        max_shard_size: bytes, or a text such as `"5GB"`, above which weights go to several files.
        tokenizer: write the tokenizer's files too, if the file has one; else those in the folder stay.
        hub: what concerns fetching.

    Returns:
        The dtype that the weights have.

    Raises:
        GGUFError: the file is not sound, or holds no model that is known.
        TokenizerError: its tokenizer is not supported.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
        OSError: the disk is full, or the system refuses; nothing was changed.
        ValueError: `dtype` or `max_shard_size` is none.
    """
    with open_gguf(find_gguf(place, gguf_file, **hub)) as file:
        model_class = family_of_file(file).causal_lm
        chosen = _exact_dtype(file, model_class.architecture) if dtype == "auto" else floating_dtype(dtype)
        model, places, _ = open_model(model_class, file, LoadOptions(dtype=chosen))
        vars(model)["generation_config"] = _generation_config(model, file.metadata)
        tokenizer_files = _tokenizer_files(file) if tokenizer else {}
        more = tokenizer_files | _model_card(file, Path(folder))
        layers = _layers(model, file, places)
        save_checkpoint(model, Path(folder), max_shard_size, chosen, layers=layers, more=more)
        if tokenizer_files:
            _remove_older_tokenizer(Path(folder), tokenizer_files)
    return chosen


def _exact_dtype(file: GGUFFile, architecture: Architecture) -> torch.dtype:
    """Return the narrowest dtype that holds all weights as they are in the file."""
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


def _layers(model: PreTrainedModel, file: GGUFFile, places: list[Place]) -> PassingLayers:
    """Read layers from the file, and let go of what has been read of it."""
    by_layer = defaultdict[str, list[Place]](list)
    for place in places:
        by_layer[place.path].append(place)

    def fill(path: str, layer: nn.Module) -> None:
        for place in by_layer[path]:
            fill_place(model, place, file[place.info.name], dequantize=True)
            file.release(place.info.name)

    return PassingLayers(model, fill)


def _generation_config(model: PreTrainedModel, metadata: Mapping[str, Any]) -> GenerationConfig:
    """Say what ends a text, and how tokens are meant to be drawn."""
    config = getattr(model, "generation_config", None) or GenerationConfig.from_model_config(model.config)
    stated = {}
    for name, field in _SAMPLING.items():
        if (value := metadata.get(key := f"general.sampling.{name}")) is not None:
            if not isinstance(value, (int, float)):
                raise GGUFError(f"{key} must be a number, not {type(value).__name__}")
            stated[field] = _shortest(value)
    if not stated:
        return config
    draws = stated.get("temperature", 1) > 0
    if not draws:  # llama.cpp takes the best token then, whatever else is stated
        stated = {field: stated[field] for field in ("repetition_penalty",) if field in stated}
    try:
        return GenerationConfig.from_dict({**config.to_dict(), **stated, "do_sample": draws})
    except ValueError as error:
        raise GGUFError(f"general.sampling.* cannot be meant: {error}") from None


def _shortest(value: float) -> float:
    """Write a float32 as people do: 0.7, not 0.699999988079071."""
    return value if isinstance(value, int) else float(str(np.float32(value)))


def _remove_older_tokenizer(folder: Path, written: Mapping[str, bytes]) -> None:
    """Remove what an earlier tokenizer has left, and readers would take for a part of this one."""
    for pattern in TOKENIZER_FILES:
        for path in folder.glob(pattern):
            if path.relative_to(folder).as_posix() not in written:
                path.unlink()


def _model_card(file: GGUFFile, folder: Path) -> dict[str, bytes]:
    """Return the contents of a model card by its name, unless there is one: somebody has written that."""
    card = None if (folder / MODEL_CARD).exists() else model_card(file.metadata)
    return {} if card is None else {MODEL_CARD: card.encode(errors="replace")}


def _tokenizer_files(file: GGUFFile) -> dict[str, bytes]:
    """Return the contents of the tokenizer's files by their names."""
    if file.metadata.get("tokenizer.ggml.model", _NO_TOKENIZER) == _NO_TOKENIZER:
        return {}
    return {name: text.encode() for name, text in Tokenizer.from_gguf(file).file_contents().items()}
