"""What the quantization types are tested against: ggml's own C code (golden files) and the gguf package."""

from dataclasses import dataclass

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import QUANT_VECTORS
from torchgguf.quants import QuantType, quant_types

# The gguf package names this type but has no code for it.
_NOT_IN_GGUF_QUANTS = {"Q1_0", "Q2_0"}


@dataclass(frozen=True)
class Golden:
    """What ggml packed, and what it unpacked from that. Rows of 512 weights."""

    file: str
    ggml_type: int
    block_size: int
    type_size: int
    packed: Tensor
    unpacked: Tensor
    weights: Tensor  # what was packed
    imatrix: Tensor | None  # importance of each column, if it was packed with that


def goldens() -> list[Golden]:
    found = []
    for path in sorted(QUANT_VECTORS.glob("*.npz")):
        data = np.load(path)
        layout = (int(data[key]) for key in ("ggml_type", "block_size", "type_size"))
        ggml_type, block_size, type_size = layout
        for kind in ("", "_imatrix"):
            if f"packed{kind}" in data:
                tensors = (torch.from_numpy(data[key + kind]) for key in ("packed", "unpacked"))
                importance = torch.from_numpy(data["imatrix"]) if kind else None
                original = torch.from_numpy(data["x"])
                layout_and_tensors = (ggml_type, block_size, type_size, *tensors, original, importance)
                found.append(Golden(path.stem + kind, *layout_and_tensors))
    return found


def golden_of(file: str) -> Golden:
    """The one of this name; a test that has none is skipped."""
    if not QUANT_VECTORS.exists():
        pytest.skip("ggml's blocks are not there: ../shared/vectors")
    return next(golden for golden in goldens() if golden.file == file)


def hard_weights(columns: int = 768) -> tuple[Tensor, Tensor]:
    """Rows that are zero, constant, tiny, huge, rounded, one-sided or far from zero; and importances.

    The last ones come near what a search takes for zero, for infinite, or for as good as another.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(42, columns, generator=generator)
    x[12:37] *= torch.rand(25, 1, generator=generator) ** 20
    x[0] = 0
    x[1] *= 1e30
    x[2] *= 1e-7
    x[3] = 1
    x[4] = -2
    x[5] = (4 * x[20]).round()
    x[6] = x[6].abs()
    x[7, ::3] = 0
    x[8] *= 1e-38
    x[9] = x[9].abs() + 100
    x[10, :300] = 0
    x[11] *= 1e-40
    x[37] *= 2.0**-38
    x[38] *= 2.0**40
    x[39] = x[39].sign() * torch.finfo().max
    x[40] = torch.where(x[40] < 1, -0.0, x[40])
    x[41] = (2 * x[41]).round() / 2
    importance = torch.rand(columns, generator=generator) ** 6
    importance[::7] = 0
    importance[:64] = 0
    return x, importance


def types_in_gguf() -> list[QuantType]:
    """The types that the gguf package can unpack."""
    listed = gguf.GGMLQuantizationType.__members__.keys() - _NOT_IN_GGUF_QUANTS
    return [kind for kind in quant_types() if kind.dtype is None and kind.name in listed]


def random_rows(kind: QuantType, rows: int = 64, blocks: int = 9) -> Tensor:
    """Packed rows with every pattern of bits: infinite, NaN, subnormal and negative scales among them."""
    generator = torch.Generator().manual_seed(kind.id)
    packed = torch.randint(0, 256, (rows, blocks * kind.type_size), dtype=torch.uint8, generator=generator)
    packed[0] = 0
    packed[1] = 255
    return packed


def unpacked_by_gguf(packed: Tensor, kind: QuantType) -> Tensor:
    with np.errstate(all="ignore"):  # it meets infinities and NaNs
        rows = gguf.quants.dequantize(packed.numpy(), gguf.GGMLQuantizationType(kind.id))
    return torch.from_numpy(rows)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Equal to the last bit, the sign of zero included; any NaN equals any NaN."""
    bits = {2: torch.int16, 4: torch.int32}[expected.dtype.itemsize]
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    same = (actual.view(bits) == expected.view(bits)) | (actual.isnan() & expected.isnan())
    assert same.all(), f"{(~same).sum()} of {same.numel()} differ"
