"""Split models: several files, named `-00001-of-00003.gguf` and so on, that are one."""

import re
from collections.abc import Callable
from dataclasses import replace
from os import PathLike

from torchgguf.container.encoder import encode_value
from torchgguf.container.errors import GGUFError
from torchgguf.container.metadata import Metadata
from torchgguf.container.reading.mapping import Shard, open_shard
from torchgguf.container.tensors import TensorInfo

# As llama.cpp's gguf-split writes them: `split.no` counts from 0, the file name from 1.
NUMBER, COUNT, TENSORS = SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
Opener = Callable[[str | PathLike[str]], Shard]

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def shard_names(name: str) -> list[str]:
    """The names of all files of the model that the file `name` is part of; itself alone if it is whole."""
    match = _NAME.fullmatch(name)
    return [name] if match is None else member_names(match[1], int(match[3]))


def member_names(stem: str, count: int) -> list[str]:
    """The names of the `count` files of a split model."""
    return [f"{stem}-{index + 1:05}-of-{count:05}.gguf" for index in range(count)]


def open_shards(path: str | PathLike[str], opener: Opener = open_shard) -> list[Shard]:
    """Open a file and, if it is part of a split model, all the others of that in their order."""
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
    """The metadata and the tensors of all shards together, without what concerns the splitting."""
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
            # As bytes: a NaN equals no other, and 1 equals True and 1.0.
            if key in metadata and (
                metadata.types[key] != value_type
                or encode_value(metadata[key], value_type) != encode_value(value, value_type)
            ):
                raise GGUFError(f"metadata key {key!r} differs from that of the other shards", path=path)
            metadata.set_unchecked(key, value, value_type)
        for name, info in header.tensors.items():
            if name in tensors:
                owner = shards[tensors[name].shard].path
                raise GGUFError(f"tensor {name!r} is in {owner.name} too", path=path)
            tensors[name] = replace(info, shard=index)
    expected = _integer(first, TENSORS)
    if len(tensors) != expected:
        raise GGUFError(f"{TENSORS} is {expected}, but the shards hold {len(tensors)}", path=first.path)
    return metadata, tensors


def _open_member(named: Shard, name: str, index: int, count: int, opener: Opener) -> Shard:
    path = named.path.with_name(name)
    try:
        shard = named if path == named.path else opener(path)
    except FileNotFoundError:
        reason = f"shard {index + 1} of {count} is missing: {path.name} is not beside it"
        raise GGUFError(reason, path=named.path) from None
    for key, expected in ((NUMBER, index), (COUNT, count)):
        if (found := _integer(shard, key)) != expected:
            raise GGUFError(f"{key} is {found}, but the file's name says {expected}", path=path)
    return shard


def _integer(shard: Shard, key: str) -> int:
    value = shard.header.metadata.get(key)
    if type(value) is not int:
        raise GGUFError(f"{key} is {'missing' if value is None else 'not an integer'}", path=shard.path)
    return value
