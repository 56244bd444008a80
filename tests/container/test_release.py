"""What has been read of a mapped file can be let go of."""

import mmap
import sys
from pathlib import Path

import pytest
import torch

from torchgguf.container import open_gguf, write_gguf


def pages_of(path: Path) -> int:
    """How many bytes of a mapped file this process has in memory, by the system's own account."""
    size, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            size += int(line.split()[1]) * 1024
    return size


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is in memory")
def test_a_tensor_that_is_released_takes_no_memory(tmp_path):
    path = tmp_path / "x.gguf"
    weights = {f"w{i}": torch.full((1 << 20,), float(i)) for i in range(4)}
    write_gguf(path, {}, weights)
    with open_gguf(path) as file:
        tensors = {name: file[name] for name in weights}
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)
        before = pages_of(path)
        assert before >= 4 << 22
        file.release("w1")
        assert pages_of(path) <= before - (1 << 22) + 2 * mmap.PAGESIZE
        for name in weights:
            file.release(name)
        assert pages_of(path) <= mmap.PAGESIZE
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)
