"""Where everything lies in a block of each type, for kernels that are not written in C++.

`LAYOUTS["Q4_K"].fields["quants"].offset` and its like are plain numbers, to be passed to a kernel as
constants. The table is that of csrc/formats/layouts.h, whose comments explain each type's fields;
`scripts/native_stubs.py` writes layouts.json from it, and tests compare the two. It is there without the
native part too.

Most types are alike: weight = d * scale * (code - zero) - dmin * minimum, where a code is `quants`, and in
some types `high` above it. In a field of codes, 8 / bits of them share a byte. Its bytes come in runs of
`run`: a run stores first the codes in the lowest bits of its bytes, one after the other, then those in the
next higher bits, and so on (`BlockField.place`).
"""

import json
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class BlockField:
    """`count` numbers of a block."""

    kind: str
    """f16, bf16, f32, f64, i8 to i64, u8 to u32, e8m0, ue4m3 (bit 7 unused), or codes."""
    offset: int
    """Bytes from the begin of the block to the first number."""
    count: int
    step: int = 0
    """Bytes from a number to the next; 0 for codes."""
    bits: int = 0
    run: int = 0
    shift: int = 0
    """The bit of the whole code from which on these bits belong."""
    zero: int = 0
    """The code that stands for zero."""

    def place(self, i: int) -> tuple[int, int]:
        """Return the byte of the block that stores number i, and the bit of it from which on."""
        if self.kind != "codes":
            return self.offset + i * self.step, 0
        per_byte = 8 // self.bits
        byte = i // (self.run * per_byte) * self.run + i % self.run
        return self.offset + byte, i // self.run % per_byte * self.bits


@dataclass(frozen=True)
class BlockLayout:
    """The block of one type."""

    id: int
    block_size: int
    type_size: int
    fields: dict[str, BlockField]
    grid: tuple[int, int] | None = None
    """Entries of the type's codebook, and numbers an entry."""


def _load() -> dict[str, BlockLayout]:
    table = json.loads(files(__package__).joinpath("layouts.json").read_text())
    return {
        name: BlockLayout(
            layout["id"],
            layout["block_size"],
            layout["type_size"],
            {at: BlockField(**numbers) for at, numbers in layout["fields"].items()},
            tuple(layout["grid"]) if "grid" in layout else None,
        )
        for name, layout in table.items()
    }


LAYOUTS = _load()
