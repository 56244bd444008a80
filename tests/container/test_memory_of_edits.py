"""Editing, splitting and merging a large file takes little memory: it is copied piece by piece."""

import os
import subprocess
import sys
import textwrap

import pytest

from torchgguf.container import write_gguf

SIZE = 1 << 28  # of one tensor, in bytes; the files have holes, so the disk holds next to nothing of them
JOBS = {
    "edit": "edit_metadata(path, {'general.author': 'x' * 100})",
    "split": "split_gguf(path, out, max_tensors=1)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the system's own account of memory")
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_memory(tmp_path, job):
    import torch

    path = tmp_path / "x.gguf"
    write_gguf(path, {"general.architecture": "x"}, {"w": torch.ones(1)})
    raw = path.read_bytes()
    name = raw.index(b"w", 60)
    header = bytearray(raw)
    at = name + 1 + 4
    header[at : at + 8] = (SIZE // 4).to_bytes(8, "little")
    path.write_bytes(header)
    os.truncate(path, len(raw) - 32 + SIZE)
    program = f"""
        from pathlib import Path
        from torchgguf.container import *
        def status(key):
            return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) // 1024
        path, out = {str(path)!r}, {str(tmp_path / "out")!r}
        before = status("VmRSS:")
        Path("/proc/self/clear_refs").write_text("5")
        {job}
        print(status("VmHWM:") - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64, "megabytes"
