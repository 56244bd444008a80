"""Unpacking in torch against ggml, to the last bit."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.quants.evidence import (
    assert_same_bits,
    golden_of,
    goldens,
    random_rows,
    types_in_gguf,
    unpacked_by_gguf,
)
from tests.support import ROOT
from torchgguf.quants import quant_type
from torchgguf.quants.reference import dequantize


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.file)
def test_unpacks_as_ggml_does(golden):
    unpacked = dequantize(golden.packed, golden.ggml_type)
    assert torch.equal(unpacked.view(torch.int32), golden.unpacked.view(torch.int32))


@pytest.mark.parametrize("kind", types_in_gguf(), ids=lambda kind: kind.name)
def test_unpacks_any_bytes_as_the_gguf_package_does(kind):
    packed = random_rows(kind)
    assert_same_bits(dequantize(packed, kind), unpacked_by_gguf(packed, kind))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_dtype_is_float32_rounded(dtype):
    golden = golden_of("TQ2_0")
    unpacked = dequantize(golden.packed, golden.ggml_type, dtype=dtype)
    assert torch.equal(unpacked, golden.unpacked.to(dtype))


def test_leading_dimensions_views_and_no_rows_at_all():
    golden = golden_of("Q5_K")
    rows, expected = golden.packed, golden.unpacked
    assert torch.equal(dequantize(rows.view(2, 2, 2, -1), "Q5_K"), expected.view(2, 2, 2, -1))
    assert torch.equal(dequantize(rows[3], "Q5_K"), expected[3])
    assert torch.equal(dequantize(rows[::2], "Q5_K"), expected[::2])
    assert torch.equal(dequantize(rows[:, 176:], "Q5_K"), expected[:, 256:])
    assert dequantize(rows[:0], "Q5_K").shape == (0, 512)


def test_a_tensor_of_several_parts_is_whole(monkeypatch):
    monkeypatch.setattr(
        "torchgguf.quants.reference._WEIGHTS_AT_ONCE", 1024
    )  # parts of 4 blocks; 16 blocks and 3
    golden = golden_of("Q6_K")
    size = quant_type("Q6_K").type_size
    assert torch.equal(dequantize(golden.packed, "Q6_K"), golden.unpacked)
    odd = golden.packed.view(-1, size)[:15]
    assert torch.equal(dequantize(odd, "Q6_K"), golden.unpacked.view(-1, 256)[:15])


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.file)
def test_fake_tensors_leave_nothing_fake_behind(golden):
    with FakeTensorMode() as fake:
        unpacked = dequantize(fake.from_tensor(golden.packed), golden.ggml_type)
    assert unpacked.shape == golden.unpacked.shape
    assert torch.equal(dequantize(golden.packed, golden.ggml_type), golden.unpacked)


def test_without_the_native_part_types_with_grids_unpack_all_the_same():
    program = """
import sys
sys.modules["torchgguf._native"] = None
from tests.quants.evidence import assert_same_bits, random_rows, unpacked_by_gguf
from torchgguf.quants import dequantize, quant_type
kind = quant_type("IQ3_S")
packed = random_rows(kind)
assert_same_bits(dequantize(packed, kind), unpacked_by_gguf(packed, kind))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
