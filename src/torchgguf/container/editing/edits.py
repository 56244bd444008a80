"""Edit the metadata of a file: in place if the header has room, otherwise by rewriting the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torchgguf.container.atomic import resolved, written_place
from torchgguf.container.editing.overwriting import locked, overwrite_head, undo_unfinished
from torchgguf.container.editing.stated_types import stated_type
from torchgguf.container.encoder import encode_string, encode_value
from torchgguf.container.errors import brief
from torchgguf.container.layout import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, padded
from torchgguf.container.metadata import Metadata
from torchgguf.container.reading.mapping import Shard, open_shard
from torchgguf.container.reading.parser import parse_header
from torchgguf.container.reading.shards import SPLIT_KEYS, open_shards
from torchgguf.container.value_types import MetadataType, ValueType, type_name
from torchgguf.container.writing.writer import ByteProgress, encode_header, write_gguf

ROOM = 1 << 14  # bytes, the size of a long chat template

# Spaces at the end of the metadata, which later edits use up or extend.
_FILLER = "torchgguf.padding"
_TOKENS = "tokenizer.ggml.tokens"
_ARCHITECTURE = "general.architecture"
_VOCABULARY = frozenset(f"tokenizer.ggml.{name}" for name in ("model", "pre", "tokens", "merges"))
_CRITICAL = {
    _ARCHITECTURE: "it states how to read all other metadata and the tensors",
    ALIGNMENT_KEY: "it states the positions of the tensors, which would all change",
    **dict.fromkeys(SPLIT_KEYS, "it states how the files of a split model belong together"),
}


class Edited(NamedTuple):
    """The result of an edit.

    Attributes:
        path: the file that was changed.
        in_place: whether only its header was written; otherwise the whole file was rewritten.
    """

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
    progress: ByteProgress | None = None,
) -> Edited:
    """Set and remove metadata of a GGUF file; for a split model, in its first file.

    Only the header is written if the new one fits before the tensors; spaces under the key
    `torchgguf.padding` fill the rest. A crash at that moment loses nothing (see `undo_unfinished`). Otherwise
    the whole file is rewritten and replaces the old one when it is complete. It then contains `room` such
    spaces, so that the next edit fits. In a snapshot of the Hub's cache the new file always replaces the
    link, because other snapshots share what it points to. An unfinished edit of a dead process is undone
    first.

    Args:
        path: the file; for a split model, any of its files.
        set: values by key. An existing key keeps its position and its type. A new key gets the type that the
            format states for it, or else the type that `infer_type` returns for the value.
        remove: keys. Removing `torchgguf.padding` rewrites the file without these spaces.
        types: types of keys in `set`, in place of the rules above.
        force: also make changes after which no program may be able to load the file: to
            `general.architecture`, `general.alignment` or `split.*`, to the type of a key, or to the length
            of an array of the tokenizer; and remove keys of the architecture, or what a tokenizer needs.
            Then `path` itself is changed, even if it is part of a split model.
        room: spaces for later edits if the file is rewritten, in bytes.
        progress: is called with `(done, total)` bytes if the file is rewritten.

    Returns:
        Which file was changed, and how.

    Raises:
        ValueError: a key to remove is missing, or the change needs `force`; nothing was changed.
        GGUFError: the file is invalid, a value does not fit its type, the disk is full, or another process is
            editing the file.
        OSError: the system refuses.
    """
    values, removed, types = dict(set or {}), list(dict.fromkeys(remove)), dict(types or {})
    if _FILLER in values:
        raise ValueError(f"{_FILLER} is reserved for the room of later edits: set its size with room")
    if unknown := types.keys() - values.keys():
        raise ValueError(f"types contains {brief(min(unknown))}, but set does not")
    undo_unfinished(path)
    with locked(path) as file:
        opener = partial(open_shard, mmap=False)  # a large file is copied piece by piece
        shards = [opener(path)] if force else open_shards(path, opener)
        first = shards[0]
        if first.path != Path(path):
            return edit_metadata(
                first.path, values, removed, types=types, force=force, room=room, progress=progress
            )
        new = _changed(first, values, removed, types)
        if not force:
            _check_harmless((*removed, *values), new, shards)
        # In the Hub's cache a new file takes the place of a link, and the file that was opened stays.
        editable = written_place(path) == resolved(path)
        if editable and _FILLER not in removed and (head := _new_head(first, new)) is not None:
            overwrite_head(file, path, head)
            return Edited(first.path, in_place=True)
        new.pop(_FILLER, None)
        if room and _FILLER not in removed:
            new.set(_FILLER, " " * room, ValueType.STRING)
        parse_header(encode_header(new, ()), path=path)  # raises GGUFError if nobody could read it again
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
            raise ValueError(f"{brief(key)} must be either set or removed, not both")
        if key not in new:
            near = "".join(f"; did you mean {name}?" for name in get_close_matches(key, new, 1))
            raise ValueError(f"{shard.path}: there is no key {brief(key)}{near}")
        del new[key]
    for key, value in values.items():
        new.set(key, value, types.get(key, old.types.get(key, stated_type(key))))
    return new


def _check_harmless(keys: Iterable[str], new: Metadata, shards: Sequence[Shard]) -> None:
    """Raise ValueError for a change that needs `force`."""
    first, *others = shards
    for key in keys:
        if reason := _danger(key, first.header.metadata, new):
            raise ValueError(
                f"changing {brief(key)} is dangerous: {reason}; force=True (--force) does it anyway"
            )
        if owner := next((shard for shard in others if key in shard.header.metadata), None):
            raise ValueError(f"{brief(key)} is also in {owner.path.name}: merge the files first")


def _danger(key: str, old: Metadata, new: Metadata) -> str | None:
    """Return why a change may make a file unusable, or None."""
    if key in old and key in new:
        types = old.types[key], new.types[key]
        if types[0] != types[1]:
            return f"programs that read it expect {type_name(types[0])}, not {type_name(types[1])}"
        if encode_value(old[key], types[0]) == encode_value(new[key], types[1]):
            return None
    if key in _CRITICAL:
        return _CRITICAL[key]
    if key not in new:
        if key.startswith(f"{old.get(_ARCHITECTURE)}."):
            return "programs need what it states of the architecture to load the model"
        if key in _VOCABULARY:
            return "programs need it to read texts"
    tokens, before, after = old.get(_TOKENS), old.get(key), new.get(key)
    if isinstance(before, list) and isinstance(tokens, list) and key.startswith("tokenizer."):
        count = len(after) if isinstance(after, list) else 0
        if len(before) == len(tokens) != count:
            return f"it must have one value for each of the {len(tokens)} tokens, got {count}"
    return None


def _new_head(shard: Shard, metadata: Metadata) -> bytes | None:
    """Return a new header of the same length up to the tensors, or None if it does not fit."""
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
        filler = left - len(encode_string(_FILLER)) - 4 - 8  # without its type and its length
        if filler < 0:
            return None
        unfilled.set(_FILLER, " " * filler, ValueType.STRING)
    head = encode_header(unfilled, places, header.version).ljust(start, b"\0")
    parse_header(head, path=shard.path)  # raises GGUFError if the new header is not readable
    return head
