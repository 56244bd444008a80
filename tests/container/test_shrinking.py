"""A file that becomes shorter while it is open: an error where it is read, never the end of the process."""

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from torchgguf.container import GGUFError, merge_gguf, open_gguf, split_gguf, write_gguf

WEIGHTS = {"a": torch.arange(3.0), "b": torch.arange(100_000.0), "c": torch.ones(5, dtype=torch.int16)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, {"tokenizer.ggml.tokens": [f"token {i}" for i in range(2000)]}, WEIGHTS)
    return path


def test_unmapped_tensors_are_the_same(path):
    with open_gguf(path, mmap=False) as file:
        tensors = {name: file[name] for name in file}
        assert {name: info.dtype for name, info in file.tensors.items()} == {
            name: tensor.dtype for name, tensor in WEIGHTS.items()
        }
        file.release("b")
    os.truncate(path, 100)
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)
    tensors["a"][0] = 7  # it is writable


def test_unmapped_big_endian_tensors_are_swapped(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("a", np.arange(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert open_gguf(tmp_path / "big.gguf", mmap=False)["a"].tolist() == [0, 1, 2, 3]


def test_an_unmapped_file_that_is_replaced_stays_readable(path):
    file = open_gguf(path, mmap=False)
    write_gguf(path, {}, {})
    assert torch.equal(file["b"], WEIGHTS["b"])


def test_a_tensor_that_is_not_there_any_more_is_an_error(path):
    with open_gguf(path, mmap=False) as file:
        os.truncate(path, file.tensors["b"].offset + 4096)
        assert torch.equal(file["a"], WEIGHTS["a"])
        with pytest.raises(
            GGUFError, match=r"model\.gguf: ends here, but was longer .*: 395904 bytes are missing"
        ):
            file["b"]
        with pytest.raises(GGUFError, match="bytes are missing"):
            file["c"]


@pytest.mark.parametrize("size", [0, 10, 5000, 30_000])
def test_a_header_that_ends_is_an_error(path, size):
    """The process would die here if the header were mapped: it is read while the file becomes shorter."""
    program = f"""
        import os
        from torchgguf.container import GGUFError, open_gguf
        real = os.pread
        def pread(*args):
            data = real(*args)
            os.truncate({str(path)!r}, {size})
            return data
        os.pread = pread
        try:
            open_gguf({str(path)!r})
        except GGUFError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "model.gguf: " in done.stdout


def test_merging_a_part_that_shrinks(path, tmp_path):
    parts = split_gguf(path, tmp_path / "part", max_tensors=1)
    with pytest.raises(GGUFError, match=r"tensor 'b': .*part-00002-of-00003\.gguf: ends here"):
        merge_gguf(parts[0], tmp_path / "y.gguf", progress=lambda done, total: os.truncate(parts[1], 500))
    assert not (tmp_path / "y.gguf").exists()


def test_an_unmapped_file_is_closed_with_its_last_source(path):
    before = len([*Path("/proc/self/fd").iterdir()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_gguf(path, mmap=False) as file:
            source = file.sources()["a"]
        del file
        assert torch.equal(source.load(), WEIGHTS["a"])
        del source
    assert not caught
    assert len([*Path("/proc/self/fd").iterdir()]) == before
