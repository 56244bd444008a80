"""The native decoders against ggml, to the last bit, on every instruction set that this machine has."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from tests.guard_page import guarded, needs_guard_pages
from tests.quants.evidence import assert_same_bits, goldens, random_rows, types_in_gguf, unpacked_by_gguf
from torchgguf.quants import QuantType, quant_type, quant_types
from torchgguf.quants.grids import _entries
from torchgguf.quants.reference import dequantize

_native = pytest.importorskip("torchgguf._native")

pytestmark = pytest.mark.usefixtures("isa")
DTYPES = (torch.float32, torch.bfloat16)


def decode(packed: Tensor, kind: QuantType, dtype=torch.float32, threads: int = 1) -> Tensor:
    rows, n = len(packed), kind.weights_per_row(packed.shape[1])
    out = torch.full((rows + 1, n), 7, dtype=dtype)  # one row more, to see that nobody writes there
    _native.dequantize(kind.id, packed, out[:rows], threads)
    assert (out[rows] == 7).all()
    return out[:rows]


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.file)
def test_unpacks_as_ggml_does(golden):
    kind = quant_type(golden.ggml_type)
    unpacked = decode(golden.packed, kind)
    assert torch.equal(unpacked.view(torch.int32), golden.unpacked.view(torch.int32))
    assert torch.equal(decode(golden.packed, kind, torch.bfloat16), golden.unpacked.bfloat16())


@pytest.mark.parametrize("kind", types_in_gguf(), ids=lambda kind: kind.name)
def test_unpacks_any_bytes_as_the_gguf_package_does(kind):
    packed = random_rows(kind)
    expected = unpacked_by_gguf(packed, kind)
    assert_same_bits(decode(packed, kind), expected)
    assert_same_bits(decode(packed, kind, torch.bfloat16), expected.bfloat16())


@pytest.mark.parametrize("kind", [kind for kind in quant_types() if kind.dtype], ids=lambda kind: kind.name)
def test_plain_numbers_are_converted_as_torch_does(kind):
    packed = random_rows(kind, rows=50, blocks=37)  # no multiple of any vector's length
    numbers = packed.view(kind.dtype)
    assert_same_bits(decode(packed, kind), numbers.float())
    assert_same_bits(decode(packed, kind, torch.bfloat16), numbers.float().bfloat16())


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "Q8_0", "IQ2_XS", "F16"])
def test_the_number_of_threads_changes_nothing(name):
    kind = quant_type(name)
    packed = random_rows(kind, rows=301, blocks=4096 // kind.block_size)
    once = decode(packed, kind)
    for threads in (2, 3, 16):
        assert_same_bits(decode(packed, kind, threads=threads), once)


@pytest.mark.parametrize("kind", quant_types(), ids=lambda kind: kind.name)
def test_rows_are_chosen_in_any_order(kind):
    packed = random_rows(kind, rows=20, blocks=3)
    indices = torch.tensor([19, 0, 7, 7, 3])
    for dtype in DTYPES:
        out = torch.empty(5, 3 * kind.block_size, dtype=dtype)
        _native.embedding(kind.id, packed, indices, out, 2)
        assert_same_bits(out, decode(packed, kind, dtype)[indices])


@needs_guard_pages
@pytest.mark.parametrize("kind", quant_types(), ids=lambda kind: kind.name)
def test_nothing_is_touched_behind_the_last_byte(kind):
    """A tensor may end where its file's mapping ends."""
    packed = random_rows(kind, blocks=19 if kind.dtype else 3)[-1:]
    n = kind.weights_per_row(packed.shape[1])
    for dtype in DTYPES:
        with guarded(packed) as src, guarded(torch.empty(1, n, dtype=dtype)) as dst:
            _native.dequantize(kind.id, src, dst, 1)
            assert_same_bits(dst, dequantize(packed, kind, dtype=dtype))


@pytest.mark.parametrize(
    ("type", "grid"),
    [
        (16, b"too short"),
        (12, bytes(2048)),  # Q4_K has none
        (16, bytes(range(4)) * 512),  # of more numbers than a search has room for
        (18, bytes(range(16)) * 64),
    ],
)
def test_what_is_not_a_grid_is_refused(type, grid):
    with pytest.raises(ValueError, match=f"ggml type {type} has no such grid"):
        _native.set_grid(type, grid)


@pytest.mark.parametrize("name", ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ3_S"])
def test_a_grid_may_be_set_again_but_not_changed(name):
    kind = quant_type(name)
    grid = _entries(name).tobytes()
    packed = random_rows(kind)
    before = decode(packed, kind)
    _native.set_grid(kind.id, grid)
    with pytest.raises(ValueError, match=f"ggml type {kind.id} has no such grid, or another one is set"):
        _native.set_grid(kind.id, grid[::-1])
    assert_same_bits(decode(packed, kind), before)


def test_types_that_share_a_grid_agree_on_it():
    """In a process of its own, where the grid is set to something else by the first of the two types."""
    program = """
from torchgguf import _native
_native.set_grid(19, bytes(8 * 2048))
_native.set_grid(29, bytes(8 * 2048))
_native.set_grid(29, b"\\1" * (8 * 2048))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ValueError: ggml type 29 has no such grid, or another one is set" in run.stderr
    assert "line 5" in run.stderr


def test_a_type_whose_grid_is_missing_is_refused():
    """In a process of its own: here the quants package has passed the grids on."""
    program = """
import torch
from torchgguf import _native
_native.dequantize(16, torch.zeros(1, 66, dtype=torch.uint8), torch.empty(1, 256), 1)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ValueError: the grid of ggml type 16 is missing" in run.stderr
