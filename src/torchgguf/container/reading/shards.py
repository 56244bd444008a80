"""Join the files of a split model, named `-00001-of-00003.gguf` and so on."""

import re
from collections.abc import Callable
from dataclasses import replace
from os import PathLike

from torchgguf.container.encoder import encode_value
from torchgguf.container.errors import GGUFError
from torchgguf.container.metadata import Metadata
from torchgguf.container.reading.mapping import Shard, open_shard
from torchgguf.container.tensors import TensorInfo

# As in llama.cpp's gguf-split: `split.no` counts from 0, the file name from 1.
NUMBER, COUNT, TENSORS = SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
Opener = Callable[[str | PathLike[str]], Shard]

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def shard_names(name: str) -> list[str]:
    """Return the names of all files of the model that `name` belongs to, or only `name` if it is whole."""
    match = _NAME.fullmatch(name)
    return [name] if match is None else member_names(match[1], int(match[3]))


def member_names(stem: str, count: int) -> list[str]:
    """Return the names of the `count` files of a split model."""
    return [f"{stem}-{index + 1:05}-of-{count:05}.gguf" for index in range(count)]


def open_shards(path: str | PathLike[str], opener: Opener = open_shard) -> list[Shard]:
    """Open a file and, if it is part of a split model, all other parts.

    Args:
        path: the file; for a split model, any of its files.
        opener: opens each file.

    Returns:
        The files in their order.

    Raises:
        GGUFError: a file is invalid, missing, or does not match its name.
        OSError: the system refuses.
    """
    named = opener(path)
    count = _integer(named, COUNT) if COUNT in named.header.metadata else 1
    if count <= 1:
        return [named]
    match = _NAME.fullmatch(named.path.name)
    if match is None or int(match[3]) != count:
        ending = f"-{_integer(named, NUMBER) + 1:05}-of-{count:05}.gguf"
        raise GGUFError(f"is one of {count} shards, so its name must end in {ending}", path=named.path)
    names = member_names(match[1], count)
    return [_open_member(named, name, index, count, opener) for index, name in enumerate(names)]


def join_shards(shards: list[Shard]) -> tuple[Metadata, dict[str, TensorInfo]]:
    """Merge the metadata and the tensors of all shards, without the keys `split.*`.

    Raises:
        GGUFError: shards contradict each other, or the number of tensors is wrong.
    """
    first = shards[0]
    if len(shards) == 1:
        return first.header.metadata, first.header.tensors
    metadata = Metadata()
    tensors: dict[str, TensorInfo] = {}
    for index, (path, header, *_) in enumerate(shards):
        for key, value in header.metadata.items():
            if key in SPLIT_KEYS:
                continue
            value_type = header.metadata.types[key]
            # Compare bytes: a NaN never equals a NaN, and 1 equals True and 1.0.
            if key in metadata and (
                metadata.types[key] != value_type
                or encode_value(metadata[key], value_type) != encode_value(value, value_type)
            ):
                raise GGUFError(f"metadata key {key!r} differs between the shards", path=path)
            metadata.set_unchecked(key, value, value_type)
        for name, info in header.tensors.items():
            if name in tensors:
                owner = shards[tensors[name].shard].path
                raise GGUFError(f"tensor {name!r} is also in {owner.name}", path=path)
            tensors[name] = replace(info, shard=index)
    expected = _integer(first, TENSORS)
    if len(tensors) != expected:
        raise GGUFError(f"{TENSORS} is {expected}, but the shards contain {len(tensors)}", path=first.path)
    return metadata, tensors


def _open_member(named: Shard, name: str, index: int, count: int, opener: Opener) -> Shard:
    path = named.path.with_name(name)
    try:
        shard = named if path == named.path else opener(path)
    except FileNotFoundError:
        reason = f"shard {index + 1} of {count} is missing: {path.name} must be in the same folder"
        raise GGUFError(reason, path=named.path) from None
    for key, expected in ((NUMBER, index), (COUNT, count)):
        if (found := _integer(shard, key)) != expected:
            raise GGUFError(f"{key} is {found}, but the name of the file requires {expected}", path=path)
    return shard


def _integer(shard: Shard, key: str) -> int:
    value = shard.header.metadata.get(key)
    if type(value) is not int:
        raise GGUFError(f"{key} is {'missing' if value is None else 'not an integer'}", path=shard.path)
    return value
