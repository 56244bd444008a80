"""Read Hugging Face checkpoints: config.json, and tensors in .safetensors or .bin files.

Knows no model.
"""

import json
import logging
import pickle
import re
import zipfile
from contextlib import suppress
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchgguf.container import LazyTensor
from torchgguf.hub import HubOptions, find_file, find_files

_logger = logging.getLogger(__name__)

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
INDEX = ".index.json"  # the end of the name of an index, after the name of the one file that it replaces
SAFETENSORS = "model.safetensors"
# Files that may hold the weights; the first that exists is loaded, as in transformers.
WEIGHTS = (SAFETENSORS, SAFETENSORS + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
# Bytes that are read of mapped files before they are opened again. Opening one takes milliseconds.
_READ_AT_ONCE = 1 << 25


class CheckpointError(ValueError):
    """A checkpoint is broken, or does not match its model. The message is one line and names the reason.

    A missing file is a `FileNotFoundError`.
    """


class Checkpoint:
    """The files of one model, in a folder or in a repository of the Hub. Those of a repository are fetched.

    Methods raise `CheckpointError` for a broken file, and the errors of `torchgguf.hub.find_file`.

    Args:
        place: the folder or the repository; or a config or a file of weights in a folder.
        hub: options of fetching. Once the config is read, they name the commit that it came from.
    """

    def __init__(self, place: str | PathLike[str], **hub: Unpack[HubOptions]) -> None:
        # A Path would turn "./model" into "model", which may be a repository.
        self.place, self.hub = fspath(place), hub
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
        shards = list(dict.fromkeys(names.values()))
        tensors: dict[str, LazyTensor] = {}
        for path in find_files(self.place, shards, **self.hub):
            found = _list_tensors(path, opened)
            if absent := [name for name, shard in names.items() if shard == path.name and name not in found]:
                raise CheckpointError(f"{path} lacks {list_names(absent)}, which {file.name} lists")
            tensors |= {name: found[name] for name in found if names.get(name, path.name) == path.name}
        return tensors


class _PassingFiles:
    """Files of weights that are opened again after some megabytes.

    What is read of a mapped file stays in memory while the file is mapped: in the end all of it.
    """

    def __init__(self) -> None:
        self._opened: dict[Path, dict[str, Tensor]] = {}
        self._read = 0

    def load(self, file: Path, name: str, expected: torch.Size) -> Tensor:
        if self._read > _READ_AT_ONCE:
            self._opened.clear()
            self._read = 0
        if file not in self._opened:
            self._opened[file] = read_tensors(file)
        tensor = self._opened[file].get(name)
        if tensor is None or tensor.shape != expected:
            raise CheckpointError(f"{file} has changed while it was read")
        if _is_mappable(file):
            self._read += tensor.nbytes
        return tensor


def _list_tensors(file: Path, opened: _PassingFiles | None) -> dict[str, LazyTensor]:
    tensors = {}
    for name, tensor in read_tensors(file).items():
        load = partial(_same, tensor) if opened is None else partial(opened.load, file, name, tensor.shape)
        tensors[name] = LazyTensor(tuple(tensor.shape), tensor.dtype, load)
    return tensors


def _same(tensor: Tensor) -> Tensor:
    return tensor


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that contains one JSON object."""
    try:
        contents = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {_one_line(error)}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} must contain one JSON object, got {type(contents).__name__}")
    return contents


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Open one file of weights, mapped where the format allows it, and return its tensors by name."""
    read = _read_safetensors if file.suffix == ".safetensors" else _read_pickle
    tensors = read(file)
    if odd := [name for name, value in tensors.items() if not (isinstance(name, str) and _is_whole(value))]:
        raise CheckpointError(
            f"{file} must contain tensors by name, but some entries are not tensors: {list_names(odd)}"
        )
    return tensors


def _is_whole(value: Any) -> bool:
    """Return whether a value is a tensor that stores all its elements, as a pickle may contain others."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def list_names(names: list[str], shown: int = 8) -> str:
    """Join names for a message, the first `shown` of them."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a mapping)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is broken: {_one_line(error)}") from None


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """Read what `torch.save` wrote. Code in it does not run: torch refuses all but tensors."""
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_mappable(file))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it imports {found[1]}" if found else _one_line(error)
        raise CheckpointError(f"{file} contains more than tensors and is not loaded: {what}") from None
    except OSError:
        raise
    except Exception as error:  # torch raises errors of many kinds here
        raise CheckpointError(f"{file} is broken: {_one_line(error)}") from None
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
    for name, shard in names.items():
        # An index may name files in its own folder only.
        if not isinstance(shard, str) or Path(shard).name != shard or Path(shard).suffix != suffix:
            raise CheckpointError(
                f"{file}: the file of {name} must be a {suffix} file in the same folder, got {shard!r}"
            )
    return names


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
