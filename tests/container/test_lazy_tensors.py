"""Tensors that are loaded when they are needed: what they say of themselves, and what stays in memory."""

import sys
from pathlib import Path

import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from torchgguf.container import LazyTensor, TensorSource, TensorType, open_gguf, write_gguf


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.bool])
def test_of_a_dtype(dtype):
    tensor = torch.ones(3, 5).to(dtype)
    lazy = LazyTensor((3, 5), dtype, lambda: tensor)
    assert (lazy.dtype, lazy.nbytes, lazy.is_packed) == (tensor.dtype, tensor.nbytes, False)
    assert lazy.load() is tensor


@pytest.mark.parametrize("name", ["F16", "I32", "Q4_K", "IQ2_XS"])
def test_of_a_type(name):
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    lazy = LazyTensor((3, 512), TensorType[name], lambda: torch.empty(0))
    assert lazy.nbytes == 3 * 512 // block * size
    assert lazy.is_packed == (block > 1)
    assert lazy.dtype == {"F16": torch.float16, "I32": torch.int32}.get(name, torch.uint8)


def resident() -> int:
    """Bytes of files in this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is in memory")
@pytest.mark.parametrize("passing", [True, False])
def test_those_that_pass_leave_memory(tmp_path, passing):
    size = 1 << 24
    write_gguf(tmp_path / "x.gguf", {}, {str(i): torch.full((size // 4,), float(i)) for i in range(6)})
    with open_gguf(tmp_path / "x.gguf") as file:
        before = resident()
        loaded = [source.load() for source in file.sources(passing=passing).values()]
        first = loaded[0].sum()
        for tensor, source in zip(loaded, file.sources(passing=passing).values(), strict=True):
            assert torch.equal(source.load(), tensor)
        kept = resident() - before
        assert (kept < 3 * size) == passing, kept
        assert loaded[0].sum() == first  # it is valid still, and read anew


@pytest.mark.parametrize("passing", [True, False])
def test_copies(tmp_path, passing):
    write_gguf(tmp_path / "x.gguf", {}, {"a": torch.arange(7.0), "b": torch.ones(2, 3, dtype=torch.int16)})
    with open_gguf(tmp_path / "x.gguf") as file:
        sources = file.sources(passing=passing)
        assert all(isinstance(source, TensorSource) for source in sources.values())
        write_gguf(tmp_path / "y.gguf", file.metadata, sources)
    assert (tmp_path / "y.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()
