"""Metadata of a file changed: in place if the header has room, else by writing the file anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torchgguf.container.encoder import encode_string, encode_value
from torchgguf.container.errors import brief
from torchgguf.container.mapping import Shard, open_shard
from torchgguf.container.metadata import Metadata
from torchgguf.container.overwriting import locked, overwrite_head, undo_unfinished
from torchgguf.container.parser import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, padded, parse_header
from torchgguf.container.shards import SPLIT_KEYS, open_shards
from torchgguf.container.stated_types import stated_type
from torchgguf.container.value_types import MetadataType, ValueType, type_name
from torchgguf.container.writer import Progress, encode_header, write_gguf

ROOM = 1 << 14  # bytes; a long chat template

# Spaces at the end of the metadata, which later edits take from and give to.
_FILLER = "torchgguf.padding"
_TOKENS = "tokenizer.ggml.tokens"
_CRITICAL = {
    "general.architecture": "it says how to read all other metadata and the tensors",
    ALIGNMENT_KEY: "it says where the tensors lie, which are all moved",
    **dict.fromkeys(SPLIT_KEYS, "it says how the files of a split model fit together"),
}


class Edited(NamedTuple):
    """What was done: which file was changed, and whether in place or by writing all of it anew."""

    path: Path
    in_place: bool


def edit_metadata(
    path: str | PathLike[str],
    set: Mapping[str, Any] | None = None,
    remove: Iterable[str] = (),
    *,
    types: Mapping[str, MetadataType] | None = None,
    force: bool = False,
    room: int = ROOM,
    progress: Progress | None = None,
) -> Edited:
    """Set and remove metadata of a GGUF file; of a split model, in its first file.

    If what comes out ends where the tensors begin, or spaces under the key `torchgguf.padding` can fill what
    is left, only the header is written, in a way that a crash cannot lose (see `undo_unfinished`). Otherwise
    the file is written anew and takes the old one's place when it is whole; then it gets `room` such spaces,
    so that the next edit finds some. An edit that a process died in is undone first.

    Args:
        path: the file; of a split model, any part.
        set: values by key. A key that is there keeps its place and its type, a new one gets the type that the
            format states for it, or else the one that its value suggests.
        remove: keys. `torchgguf.padding` too can be removed: then the file is written anew without it.
        types: of the keys to set, where none of these will do.
        force: also do what may leave a file that no program loads: change `general.architecture`,
            `general.alignment` or `split.*`, a key's type, or the length of one of the tokenizer's arrays.
            The file named is changed then, whatever others belong to it.
        room: spaces for later edits in a file that is written anew, in bytes; 0: none.
        progress: told `(done, total)` bytes when the file is written anew.

    Raises:
        ValueError: a key to remove is not there, or what is asked needs `force`; nothing was changed.
        GGUFError: the file is broken, a value does not fit its type, the disk is full, or another process is
            editing the file.
        OSError: the system refuses.
    """
    values, removed, types = dict(set or {}), list(dict.fromkeys(remove)), dict(types or {})
    if _FILLER in values:
        raise ValueError(f"{_FILLER} is what edits leave room by; say how much with room")
    if unknown := types.keys() - values.keys():
        raise ValueError(f"there is a type for {brief(min(unknown))}, but no value")
    undo_unfinished(path)
    with locked(path) as file:
        shards = [open_shard(path)] if force else open_shards(path)
        first = shards[0]
        if first.path != Path(path):
            return edit_metadata(
                first.path, values, removed, types=types, force=force, room=room, progress=progress
            )
        new = _changed(first, values, removed, types)
        if not force:
            _check_harmless((*removed, *values), new, shards)
        if _FILLER not in removed and (head := _new_head(first, new)) is not None:
            overwrite_head(file, path, head)
            return Edited(first.path, in_place=True)
        new.pop(_FILLER, None)
        if room and _FILLER not in removed:
            new.set(_FILLER, " " * room, ValueType.STRING)
        tensors = {name: first.source(info) for name, info in first.header.tensors.items()}
        write_gguf(path, new, tensors, progress=progress)
        return Edited(first.path, in_place=False)


def _changed(
    shard: Shard, values: Mapping[str, Any], removed: Iterable[str], types: Mapping[str, MetadataType]
) -> Metadata:
    old = shard.header.metadata
    new = old.copy()
    for key in removed:
        if key in values:
            raise ValueError(f"{brief(key)} cannot be both set and removed")
        if key not in new:
            near = "".join(f"; {name} is" for name in get_close_matches(key, new, 1))
            raise ValueError(f"{shard.path}: {brief(key)} is not there{near}")
        del new[key]
    for key, value in values.items():
        new.set(key, value, types.get(key, old.types.get(key, stated_type(key))))
    return new


def _check_harmless(keys: Iterable[str], new: Metadata, shards: Sequence[Shard]) -> None:
    """Raise ValueError for a change that wants to be forced."""
    first, *others = shards
    for key in keys:
        if reason := _danger(key, first.header.metadata, new):
            raise ValueError(f"{brief(key)} is better left as it is: {reason}; force it if you must")
        if owner := next((shard for shard in others if key in shard.header.metadata), None):
            raise ValueError(f"{brief(key)} is in {owner.path.name} too: merge the files first")


def _danger(key: str, old: Metadata, new: Metadata) -> str | None:
    """Why a change may leave a file that cannot be used."""
    if key in old and key in new:
        types = old.types[key], new.types[key]
        if types[0] != types[1]:
            return f"programs that read it expect {type_name(types[0])}, not {type_name(types[1])}"
        if encode_value(old[key], types[0]) == encode_value(new[key], types[1]):
            return None
    if key in _CRITICAL:
        return _CRITICAL[key]
    tokens, before, after = old.get(_TOKENS), old.get(key), new.get(key)
    if isinstance(before, list) and isinstance(tokens, list) and key.startswith("tokenizer."):
        count = len(after) if isinstance(after, list) else 0
        if len(before) == len(tokens) != count:
            return f"it has one value for each of the {len(tokens)} tokens, and would have {count}"
    return None


def _new_head(shard: Shard, metadata: Metadata) -> bytes | None:
    """All bytes before the tensors, as many as they were; None if they cannot be."""
    header = shard.header
    start, alignment = header.data_offset, header.alignment
    if (
        header.byte_order != "little"
        or not header.tensors
        or metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT) != alignment
    ):
        return None
    places = [(info.name, info.shape, info.type, info.offset - start) for info in header.tensors.values()]
    unfilled = metadata.copy()
    unfilled.pop(_FILLER, None)
    left = start - len(encode_header(unfilled, places, header.version))
    if padded(start - left, alignment) != start:
        filler = left - len(encode_string(_FILLER)) - 4 - 8  # less its type and its length
        if filler < 0:
            return None
        unfilled.set(_FILLER, " " * filler, ValueType.STRING)
    head = encode_header(unfilled, places, header.version).ljust(start, b"\0")
    parse_header(head, path=shard.path)  # GGUFError if it could not be read again
    return head
