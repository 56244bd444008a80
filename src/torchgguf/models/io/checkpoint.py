"""Read Hugging Face checkpoints: config.json, and tensors in .safetensors or .bin files.

Knows no model.
"""

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchgguf.container import LazyTensor
from torchgguf.hub import HubOptions, find_file, find_files
from torchgguf.hub.files import located
from torchgguf.models.io.limits import (
    INDEX as INDEX,
    CheckpointError as CheckpointError,  # what the methods below raise
    check_archive,
    check_count,
    check_header,
    list_names as list_names,
    read_json,
    shard_name,
    short_reason,
)

_logger = logging.getLogger(__name__)

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
SAFETENSORS = "model.safetensors"
# Files that may hold the weights; the first that exists is loaded, as in transformers.
WEIGHTS = (SAFETENSORS, SAFETENSORS + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
# Bytes that are read of mapped files before they are opened again. Opening one takes milliseconds.
_READ_AT_ONCE = 1 << 25
# The names of dtypes in .safetensors files.
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


class Checkpoint:
    """The files of one model, in a folder or in a repository of the Hub. Those of a repository are fetched.

    Methods raise `CheckpointError` for a broken file, and the errors of `torchgguf.hub.find_file`.

    Args:
        place: the folder or the repository; or a config or a file of weights in a folder.
        hub: options of fetching. Once the config is read, they name the commit that it came from.
    """

    def __init__(self, place: str | PathLike[str], **hub: Unpack[HubOptions]) -> None:
        # A Path would turn "./model" into "model", which may be a repository.
        found, self.hub = located(fspath(place), hub)
        self.place = str(found)
        self._config = CONFIG
        self._weights: tuple[str, ...] = WEIGHTS
        if (file := Path(place)).is_file():
            name, self.place = file.name, str(file.parent)
            if name.endswith(".json") and not name.endswith(INDEX):
                self._config = name
            else:
                self._weights = (name,)

    def __str__(self) -> str:
        return self.place

    @property
    def name(self) -> str:
        """The name of the folder or of the repository, without its owner."""
        return Path(self.place).resolve().name

    @property
    def folder(self) -> Path:
        """The folder of the files; for a repository, its folder in the cache."""
        return find_file(self.place, self._config, *self._weights, **self.hub).parent

    def config(self) -> dict[str, Any]:
        """Read the contents of config.json."""
        file = find_file(self.place, self._config, **self.hub)
        if not Path(self.place).exists():  # all other files must come from the same commit
            self.hub = {**self.hub, "revision": file.parent.name}
        return read_json(file)

    def extra(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file, or return None if it is missing."""
        try:
            return read_json(find_file(self.place, name, **self.hub))
        except FileNotFoundError:
            return None

    def fetch(self, name: str) -> None:
        """Fetch a file into the folder, unless the repository lacks it."""
        with suppress(FileNotFoundError):
            find_file(self.place, name, **self.hub)

    def tensors(self, pickles: bool = True, passing: bool = False) -> dict[str, LazyTensor]:
        """Open the weights.

        Args:
            pickles: whether to load .bin files if there are no .safetensors files.
            passing: whether tensors leave memory when the next ones are loaded.

        Returns:
            The tensors by name.
        """
        wanted = [name for name in self._weights if pickles or ".safetensors" in name]
        if not wanted:
            raise CheckpointError(
                f"{self}: {self._weights[0]} is not a .safetensors file, which use_safetensors=True requires"
            )
        file = find_file(self.place, *wanted, **self.hub)
        opened = _PassingFiles() if passing else None
        if not file.name.endswith(INDEX):
            if file.name in WEIGHTS and len(wanted) > 1:
                _warn_of_shards(file)
            return _list_tensors(file, opened)
        names = _read_index(file)
        check_count(file, len(names))
        of_shard: dict[str, list[str]] = {}
        for name, shard in names.items():
            of_shard.setdefault(shard, []).append(name)
        tensors: dict[str, LazyTensor] = {}
        for path in find_files(self.place, list(of_shard), **self.hub):
            found = _list_tensors(path, opened)
            if absent := [name for name in of_shard[path.name] if name not in found]:
                raise CheckpointError(f"{path} lacks {list_names(absent)}, which {file.name} lists")
            tensors |= {name: found[name] for name in found if names.get(name, path.name) == path.name}
            check_count(file, len(tensors))
        return tensors


class _PassingFiles:
    """Files of weights that are opened again after some megabytes.

    What is read of a mapped file stays in memory while the file is mapped: in the end all of it.
    """

    def __init__(self) -> None:
        self._opened: dict[Path, Mapping[str, LazyTensor]] = {}
        self._read = 0

    def load(self, file: Path, name: str, expected: tuple[int, ...]) -> Tensor:
        if self._read > _READ_AT_ONCE:
            self._opened.clear()
            self._read = 0
        if file not in self._opened:
            self._opened[file] = open_tensors(file)
        tensor = self._opened[file].get(name)
        if tensor is None or tensor.shape != expected:
            raise CheckpointError(f"{file} has changed while it was read")
        if _is_mappable(file):
            self._read += tensor.nbytes
        return tensor.load()


def _list_tensors(file: Path, opened: _PassingFiles | None) -> dict[str, LazyTensor]:
    tensors = open_tensors(file)
    if opened is None:
        return tensors
    return {
        name: replace(tensor, load=partial(opened.load, file, name, tensor.shape))
        for name, tensor in tensors.items()
    }


def open_tensors(file: Path) -> dict[str, LazyTensor]:
    """Open one file of weights, mapped where the format allows it, and return its tensors by name."""
    return _open_safetensors(file) if file.suffix == ".safetensors" else _open_pickle(file)


def _open_safetensors(file: Path) -> dict[str, LazyTensor]:
    check_header(file)
    tensors = {}
    try:
        stored: Any = safe_open(file, framework="pt")  # the tensors keep it open
        check_count(file, len(stored.keys()))
        for name in stored.keys():  # noqa: SIM118  (not a mapping)
            # Shapes and dtypes only: tensors take twenty times as long to make.
            described = stored.get_slice(name)
            if (dtype := _DTYPES.get(described.get_dtype())) is None:
                reason = f"tensor {list_names([name])} has the unsupported dtype {described.get_dtype()}"
                raise CheckpointError(f"{file}: {reason}")
            shape = tuple(described.get_shape())
            tensors[name] = LazyTensor(shape, dtype, partial(stored.get_tensor, name))
    except SafetensorError as error:
        raise CheckpointError(f"{file} is broken: {short_reason(error)}") from None
    return tensors


def _open_pickle(file: Path) -> dict[str, LazyTensor]:
    tensors = _read_pickle(file)
    if odd := [name for name, value in tensors.items() if not (isinstance(name, str) and _is_whole(value))]:
        raise CheckpointError(
            f"{file} must contain tensors by name, but some entries are not tensors: {list_names(odd)}"
        )
    return {
        name: LazyTensor(tuple(tensor.shape), tensor.dtype, partial(_same, tensor))
        for name, tensor in tensors.items()
    }


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _is_whole(value: Any) -> bool:
    """Return whether a value is a tensor that stores all its elements, as a pickle may contain others."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """Read what `torch.save` wrote. Code in it does not run: torch refuses all but tensors."""
    if zipfile.is_zipfile(file):
        check_archive(file)
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_mappable(file))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it imports {found[1]}" if found else short_reason(error)
        raise CheckpointError(f"{file} contains more than tensors and is not loaded: {what}") from None
    except OSError:
        raise
    except Exception as error:  # torch raises errors of many kinds here
        raise CheckpointError(f"{file} is broken: {short_reason(error)}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} must contain tensors by name, got {type(contents).__name__}")
    return contents


def _warn_of_shards(file: Path) -> None:
    """Warn if the folder contains the same weights in one file and in shards: one of them may be old.

    transformers loads the one file, too. It leaves that file in the folder when it saves shards.
    """
    index = file.with_name(file.name + INDEX)
    if not index.is_file():
        return
    try:
        shards = set(_read_index(index).values())
    except CheckpointError:
        return
    if all(file.with_name(shard).is_file() for shard in shards):
        _logger.warning(
            "%s is loaded, but %s lists other files with weights: remove those that are out of date",
            *(file, index.name),
        )


def _is_mappable(file: Path) -> bool:
    """Return whether tensors can stay in the file. Pickles of torch before 1.6 are not zip archives."""
    return file.suffix == ".safetensors" or zipfile.is_zipfile(file)


def _read_index(file: Path) -> dict[str, str]:
    """Return the name of the file of each tensor."""
    names = read_json(file).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{file} contains no weight_map")
    suffix = Path(file.name.removesuffix(INDEX)).suffix
    # An index may name files in its own folder only.
    return {name: shard_name(file, name, shard, suffix) for name, shard in names.items()}
