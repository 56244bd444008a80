"""Read and write importance matrices in the older binary format of `llama-imatrix`, now called "dat".

The file is little-endian, and all integers are int32. It begins with the number of entries. Each entry has
the length of its name, the name, `calls`, the number of values, and these values as float32: means times
`calls`, with all experts one after the other. Then follow the number of chunks, and the length and name of
the dataset, which the oldest files do not have (llama.cpp: tools/imatrix/imatrix.cpp,
common/imatrix-loader.cpp).
"""

from __future__ import annotations

import mmap
import struct
from io import FileIO
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from torchgguf.container import GGUFError
from torchgguf.container.atomic import atomic_write
from torchgguf.container.layout import MAX_ENTRIES
from torchgguf.container.reading.cursor import Cursor
from torchgguf.container.reading.lookalike import guess_format
from torchgguf.container.tensors import MAX_NAME_BYTES
from torchgguf.packing.column_statistics import Activations, Statistics

_MAX_DATASET_BYTES = 1 << 16


def read_legacy_imatrix(path: str | PathLike[str], chunk_size: int) -> Statistics:
    """Read a file; errors are those of `load_imatrix`.

    Args:
        path: the file.
        chunk_size: how many activations each call counts for, as in llama-imatrix.
    """
    with Path(path).open("rb") as file:
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:
            raise GGUFError("is empty", path=path) from None
    cursor = Cursor(data, path)
    entries = cursor.number("i", "the number of entries")
    if not 0 < entries <= MAX_ENTRIES:
        raise _unknown(cursor)
    activations: dict[str, Activations] = {}
    for index in range(entries):
        name = _text(cursor, f"the name of entry {index}", MAX_NAME_BYTES)
        if name in activations or not name:
            raise cursor.error(f"duplicate entry {name!r}" if name else f"entry {index} has no name")
        activations[name] = _entry(cursor, name, chunk_size)
    chunks, dataset = 0, ""
    if cursor.position < len(data):
        chunks = cursor.number("i", "the number of chunks")
    if cursor.position < len(data):
        dataset = _text(cursor, "the name of the dataset", _MAX_DATASET_BYTES)
    if chunks < 0 or cursor.position < len(data):
        raise cursor.error(
            f"the number of chunks must not be negative, got {chunks}"
            if chunks < 0
            else "there is data after its end"
        )
    return Statistics(activations, [dataset] if dataset else [], chunks, chunk_size)


def write_legacy_imatrix(path: str | PathLike[str], statistics: Statistics) -> None:
    """Write a file, without tensors whose counts are all 0; errors are those of `ImportanceMatrix.save`."""
    seen = {name: each for name, each in statistics.activations.items() if bool(each.counts.any())}
    with atomic_write(path) as file:
        _write(file, struct.pack("<i", len(seen)))
        for name in sorted(seen, key=str.encode):
            calls = -(-int(seen[name].counts.max()) // statistics.chunk_size)
            values = seen[name].means.flatten() * calls
            _write(file, _packed(name) + struct.pack("<ii", calls, values.numel()))
            _write(file, values.cpu().numpy().astype("<f4").tobytes())
        _write(file, struct.pack("<i", statistics.chunk_count))
        _write(file, _packed(statistics.datasets[-1] if statistics.datasets else ""))


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _entry(cursor: Cursor, name: str, chunk_size: int) -> Activations:
    calls, count = (cursor.number("i", f"entry {name!r}") for _ in range(2))
    if calls < 0 or count < 1:
        raise cursor.error(f"entry {name!r} is invalid: {count} values of {calls} calls")
    start = cursor.take(4 * count, f"entry {name!r} of {count} values")
    values = torch.from_numpy(np.frombuffer(cursor.data, "<f4", count, start).astype(np.float32))
    # With 0 calls the values are means, as of one call: so does llama-quantize read them.
    counts = torch.tensor([max(calls, 1) * chunk_size], device="cpu")
    return Activations((values * chunk_size)[None], counts)


def _text(cursor: Cursor, what: str, limit: int) -> str:
    length = cursor.number("i", f"the length of {what}")
    if not 0 <= length <= limit:
        if cursor.position <= 8:
            raise _unknown(cursor)
        raise cursor.error(f"{what} must have 0 to {limit} bytes, got {length}", cursor.position - 4)
    start = cursor.take(length, what)
    return str(cursor.data[start : cursor.position], "utf-8", "surrogateescape")


def _packed(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return struct.pack("<i", len(encoded)) + encoded


def _unknown(cursor: Cursor) -> GGUFError:
    """Return an error that states what the file probably is."""
    guess = guess_format(bytes(cursor.data[:64]))
    seems = f": it looks like {guess}" if guess else ", neither as GGUF nor in llama.cpp's older format"
    return GGUFError(f"is not an importance matrix{seems}", path=cursor.path)
