"""Files as structures that can be changed: a GGUF file, and the folder of a checkpoint."""

from __future__ import annotations

import copy
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchgguf.container import open_gguf
from torchgguf.container.value_types import SCALARS, ArrayType, ValueType

TEXT, LIST = int(ValueType.STRING), int(ValueType.ARRAY)
CODES = {int(kind): scalar.code for kind, scalar in SCALARS.items()}
_LIMIT = 1 << 64


@dataclass
class Text:
    """A text and the length that the file states: None for the true one."""

    data: bytes
    length: int | None = None


@dataclass
class Values:
    """An array, and the length that the file states: None for the true one."""

    element: int
    items: list[Any]
    length: int | None = None


@dataclass
class Tensor:
    """The description of a tensor. `dims_stated` is the number of dimensions that the file states."""

    name: Text
    dims: list[int]
    type_id: int
    offset: int
    dims_stated: int | None = None


@dataclass
class GGUFDocument:
    """A GGUF file: its parts, and what it states about their numbers."""

    pairs: list[tuple[Text, int, Any]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    order: str = "<"
    alignment: int = 32
    counts: list[int | None] = field(default_factory=lambda: [None, None])

    @classmethod
    def read(cls, path: Path) -> GGUFDocument:
        """Read a sound file."""
        with open_gguf(path) as file:
            pairs = [
                (Text(key.encode()), *_stated(value, file.metadata.types[key]))
                for key, value in file.metadata.items()
            ]
            start = min((info.offset for info in file.tensors.values()), default=0)
            tensors = [
                Tensor(Text(info.name.encode()), [*reversed(info.shape)], int(info.type), info.offset - start)
                for info in file.tensors.values()
            ]
            data = path.read_bytes()[start:] if tensors else b""
            return cls(pairs, tensors, data, alignment=file.alignment)

    def copy(self) -> GGUFDocument:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def build(self) -> bytes:
        """Return the bytes of the file."""
        pack = self._pack
        counts = [
            len(parts) if stated is None else stated
            for parts, stated in zip((self.tensors, self.pairs), self.counts, strict=True)
        ]
        parts = [self.magic, pack("I", self.version), *(pack("Q", count) for count in counts)]
        for key, kind, value in self.pairs:
            parts += [self._text(key), pack("I", kind), self._value(kind, value)]
        for tensor in self.tensors:
            dims = len(tensor.dims) if tensor.dims_stated is None else tensor.dims_stated
            parts += [self._text(tensor.name), pack("I", dims), *(pack("Q", size) for size in tensor.dims)]
            parts += [pack("I", tensor.type_id), pack("Q", tensor.offset)]
        header = b"".join(parts)
        alignment = self.alignment if 0 < self.alignment <= 1 << 16 else 32
        return header + bytes(-len(header) % alignment) + self.data

    def _pack(self, code: str, number: Any) -> bytes:
        size = struct.calcsize(code)
        if code in "fd":
            return struct.pack(self.order + code, number)
        return (int(number) % (1 << 8 * size)).to_bytes(size, "little" if self.order == "<" else "big")

    def _text(self, text: Text) -> bytes:
        return self._pack("Q", len(text.data) if text.length is None else text.length) + text.data

    def _value(self, kind: int, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, Text):
            return self._text(value)
        if isinstance(value, Values):
            count = len(value.items) if value.length is None else value.length
            items = b"".join(self._value(value.element, item) for item in value.items)
            return self._pack("I", value.element) + self._pack("Q", count) + items
        code = {"?": "B"}.get(CODES.get(kind, "I"), CODES.get(kind, "I"))
        try:
            return self._pack(code, value)
        except (OverflowError, ValueError, struct.error):  # a float that the type does not hold
            return bytes(struct.calcsize(code))


def _stated(value: Any, kind: Any) -> tuple[int, Any]:
    """Return the id of a value's type, and the value as a document holds it."""
    if isinstance(kind, ArrayType):
        element = kind.element
        if isinstance(element, tuple):
            items = [_stated(item, inner)[1] for item, inner in zip(value, element, strict=True)]
            return LIST, Values(LIST, items)
        inner = LIST if isinstance(element, ArrayType) else int(element)
        return LIST, Values(inner, [_stated(item, element)[1] for item in value])
    return int(kind), Text(value.encode("utf-8", "surrogateescape")) if kind is ValueType.STRING else value


@dataclass
class FolderDocument:
    """The folder of a checkpoint: JSON files by name, and the header of its weights, which are zeros."""

    files: dict[str, Any]
    header: dict[str, Any]
    header_size: int | None = None
    data_size: int | None = None
    raw: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> FolderDocument:
        """Read a corpus file: a JSON object of the JSON files, and `weights`, their shapes by name."""
        contents = json.loads(path.read_text())
        header, end = {}, 0
        for name, shape in contents.pop("weights").items():
            size = 4
            for each in shape:
                size *= each
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        return cls(contents, header, data_size=end)

    def copy(self) -> FolderDocument:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def build(self) -> dict[str, bytes]:
        """Return the bytes of each file."""
        made = {name: json.dumps(contents).encode() for name, contents in self.files.items()}
        header = json.dumps(self.header).encode()
        stated = len(header) if self.header_size is None else self.header_size
        zeros = bytes(min(self.data_size or 0, 1 << 24))
        made["model.safetensors"] = struct.pack("<Q", stated % _LIMIT) + header + zeros
        return {**made, **self.raw}
