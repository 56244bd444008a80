"""GGUF files put together byte by byte from the format's description, to be read by the code under test."""

import struct
from dataclasses import dataclass, field
from typing import Any

STRING, ARRAY, UINT8, UINT32, INT32, BOOL = 8, 9, 0, 4, 5, 7
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8


def string(text: str | bytes, order: str = "<") -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(order + "Q", len(data)) + data


@dataclass
class Raw:
    """A file of these parts: pairs of key, type id and value's bytes; tensors of name, dims, type, offset.

    `counts` are the numbers of tensors and pairs that the header claims, by default the true ones.
    """

    pairs: list[tuple[str | bytes, int, bytes]] = field(default_factory=list)
    tensors: list[tuple[str, list[int], int, int]] = field(default_factory=list)
    data: bytes = b""
    version: int = 3
    order: str = "<"
    alignment: int = 32
    counts: tuple[int, int] | None = None

    def number(self, code: str, *values: Any) -> bytes:
        return struct.pack(self.order + code, *values)

    def array(self, element: int, count: int, data: bytes) -> bytes:
        return self.number("IQ", element, count) + data

    def strings(self, *texts: str | bytes) -> bytes:
        return self.array(STRING, len(texts), b"".join(string(text, self.order) for text in texts))

    def header(self) -> bytes:
        counts = self.counts or (len(self.tensors), len(self.pairs))
        parts = [b"GGUF", self.number("IQQ", self.version, *counts)]
        for key, type_id, value in self.pairs:
            parts += [string(key, self.order), self.number("I", type_id), value]
        for name, dims, type_id, offset in self.tensors:
            parts += [
                string(name, self.order),
                self.number(f"I{len(dims)}QIQ", len(dims), *dims, type_id, offset),
            ]
        return b"".join(parts)

    def build(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data
