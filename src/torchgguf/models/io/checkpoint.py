"""Hugging Face checkpoints on disk: config.json; tensors in .safetensors or .bin files. Knows no model."""

import json
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

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
INDEX = ".index.json"  # what an index of several files is called after the one file that it stands for
SAFETENSORS = "model.safetensors"
# Where weights are looked for; the first that is there is taken, as transformers does.
WEIGHTS = (SAFETENSORS, SAFETENSORS + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
# Bytes that are read of mapped files before they are opened anew. To open one takes milliseconds.
_READ_AT_ONCE = 1 << 25


class CheckpointError(ValueError):
    """A checkpoint is broken, or does not fit its model. One line that names the culprit.

    A file that is not there is a `FileNotFoundError`.
    """


class Checkpoint:
    """The files of one model in a folder, or in a repository of the Hub, from which they are fetched.

    Args:
        place: the folder or the repository; or a file in a folder: a config, or the weights beside one.
        hub: what concerns fetching. When the config has been read it names the commit that it came from.

    Raises (its methods too):
        CheckpointError: a file is broken.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
    """

    def __init__(self, place: str | PathLike[str], **hub: Unpack[HubOptions]) -> None:
        # Not as a Path: "./model" would become "model", which could be a repository as well.
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
        """What the folder or the repository is called, without its owner."""
        return Path(self.place).resolve().name

    @property
    def folder(self) -> Path:
        """Where the files are, those of a repository in the cache."""
        return find_file(self.place, self._config, *self._weights, **self.hub).parent

    def config(self) -> dict[str, Any]:
        """Read the contents of config.json."""
        file = find_file(self.place, self._config, **self.hub)
        if not Path(self.place).exists():  # all other files come from the same commit
            self.hub = {**self.hub, "revision": file.parent.name}
        return read_json(file)

    def extra(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file that need not be there."""
        try:
            return read_json(find_file(self.place, name, **self.hub))
        except FileNotFoundError:
            return None

    def fetch(self, name: str) -> None:
        """Have a file in the folder that need not be there."""
        with suppress(FileNotFoundError):
            find_file(self.place, name, **self.hub)

    def tensors(self, pickles: bool = True, passing: bool = False) -> dict[str, LazyTensor]:
        """Open the weights: tensors by name, each to be read when its turn comes.

        Args:
            pickles: whether .bin files will do, where there are no .safetensors.
            passing: each tensor is looked at once: what has been read does not stay in memory.
        """
        wanted = [name for name in self._weights if pickles or ".safetensors" in name]
        if not wanted:
            raise CheckpointError(f"{self}: {self._weights[0]} is no .safetensors file, as is asked for")
        file = find_file(self.place, *wanted, **self.hub)
        opened = _PassingFiles() if passing else None
        if not file.name.endswith(INDEX):
            return _list_tensors(file, opened)
        names = _read_index(file)
        shards = list(dict.fromkeys(names.values()))
        tensors: dict[str, LazyTensor] = {}
        for path in find_files(self.place, shards, **self.hub):
            found = _list_tensors(path, opened)
            if absent := [name for name, shard in names.items() if shard == path.name and name not in found]:
                raise CheckpointError(f"{path} lacks {list_names(absent)}, which {file.name} says it holds")
            tensors |= {name: found[name] for name in found if names.get(name, path.name) == path.name}
        return tensors


class _PassingFiles:
    """Files of weights that are opened anew now and then.

    What has been read of a mapped file stays in memory while the file is mapped: by and by all of it.
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
    """Read a file that holds one JSON object."""
    try:
        contents = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is no JSON: {_one_line(error)}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} must hold one JSON object, but it holds {type(contents).__name__}")
    return contents


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Open one file of weights: tensors by name, mapped wherever the format allows it."""
    read = _read_safetensors if file.suffix == ".safetensors" else _read_pickle
    tensors = read(file)
    if odd := [name for name, value in tensors.items() if not (isinstance(name, str) and _is_whole(value))]:
        raise CheckpointError(f"{file} must hold tensors by name, but no tensor is {list_names(odd)}")
    return tensors


def _is_whole(value: Any) -> bool:
    """Tell a tensor with all its elements in memory from what a pickle may hold besides."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def list_names(names: list[str], shown: int = 8) -> str:
    """Join names for a message, not all of them if they are many."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is broken: {_one_line(error)}") from None


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """Read what `torch.save` wrote. Code in it is not run: torch refuses all but tensors."""
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_mappable(file))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it wants {found[1]}" if found else _one_line(error)
        raise CheckpointError(f"{file} holds more than tensors, and is not loaded: {what}") from None
    except OSError:
        raise
    except Exception as error:  # torch raises whatever it stumbles over
        raise CheckpointError(f"{file} is broken: {_one_line(error)}") from None
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} must hold tensors by name, but it holds {type(contents).__name__}")
    return contents


def _is_mappable(file: Path) -> bool:
    """Tell whether tensors can stay in the file: pickles from before torch 1.6, no zip archives, are read."""
    return file.suffix == ".safetensors" or zipfile.is_zipfile(file)


def _read_index(file: Path) -> dict[str, str]:
    """Return which file holds which tensor."""
    names = read_json(file).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{file} has no weight_map")
    suffix = Path(file.name.removesuffix(INDEX)).suffix
    for name, shard in names.items():
        # An index names its neighbours, and nothing else on this machine.
        if not isinstance(shard, str) or Path(shard).name != shard or Path(shard).suffix != suffix:
            raise CheckpointError(
                f"{file}: {name} is said to be in {shard!r}, which is no {suffix} file beside it"
            )
    return names


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
