"""`torchgguf info` tells what gguf-py reads from the same file."""

import json
import os
import re
import struct
import subprocess
from contextlib import suppress

import gguf
import pytest

from tests.cli.conftest import COMMAND, TIMEOUT
from tests.support import SMOLLM2

try:
    import fcntl
    import pty
    import termios
except ImportError:  # not on Windows
    pass


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(SMOLLM2)


def test_json_holds_everything(torchgguf, reader):
    result = torchgguf("info", SMOLLM2, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)

    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert document["metadata"] == {key: field.contents() for key, field in fields.items()}
    tensors = [
        {
            "name": tensor.name,
            "type": tensor.tensor_type.name,
            "shape": tensor.shape.tolist()[::-1],
            "nbytes": int(tensor.n_bytes),
            "offset": int(tensor.data_offset),
            "file": 0,
        }
        for tensor in reader.tensors
    ]
    assert document["tensors"] == tensors
    assert document["version"] == reader.fields["GGUF.version"].contents()
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    nbytes = sum(tensor["nbytes"] for tensor in tensors)
    assert document["totals"]["parameters"] == parameters
    assert document["totals"]["bits_per_weight"] == pytest.approx(8 * nbytes / parameters)
    assert sum(kind["nbytes"] for kind in document["types"].values()) == nbytes


def test_tables_for_people(torchgguf, reader):
    result = torchgguf("info", SMOLLM2, "--all")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "llama.block_count uint32 30" in lines
    assert any(line.startswith("tokenizer.ggml.tokens [string]") and "49,152" in line for line in lines)
    for tensor in reader.tensors:
        shape = " × ".join(map(str, tensor.shape.tolist()[::-1]))
        assert f"{tensor.name} {tensor.tensor_type.name} {shape} {tensor.n_bytes:,}" in lines
    assert max(map(len, lines)) <= 160


def test_a_files_strings_do_not_steer_the_terminal(torchgguf, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_string("general.name", "red \x1b[31m and [bold]markup[/bold]\nnext line")
    writer.add_float32("general.infinite", float("inf"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    result = torchgguf("info", tmp_path / "x.gguf")
    assert result.returncode == 0
    assert r"red \x1b[31m and [bold]markup[/bold]\nnext line" in result.stdout
    document = json.loads(torchgguf("info", tmp_path / "x.gguf", "--json").stdout)
    assert document["metadata"]["general.name"].startswith("red \x1b[31m")
    assert document["metadata"]["general.infinite"] == "inf"


def test_layers_are_one_line_after_the_summary(torchgguf, reader):
    result = torchgguf("info", SMOLLM2)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith("GGUF version 3, little endian")
    assert lines[2] == "types" and lines[9] == "metadata"
    sizes = [int(tensor.n_bytes) for tensor in reader.tensors if tensor.name.endswith("ffn_up.weight")]
    assert f"blk.*.ffn_up.weight {len(sizes)} Q4_1 1536 × 576 {sum(sizes):,}" in lines
    assert len(lines) < 80


@pytest.mark.skipif(os.name != "posix", reason="a terminal of its own")
@pytest.mark.parametrize("columns", [60, 100])
def test_tables_in_a_terminal(columns):
    """No line is longer than the terminal is wide; columns go, not parts of numbers."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [*COMMAND, "info", SMOLLM2],
        stdout=slave,
        stderr=subprocess.STDOUT,
        env={**environment, "TERM": "xterm"},
    )
    os.close(slave)
    said = b""
    with suppress(OSError):  # the terminal is closed at the end
        while more := os.read(master, 1 << 16):
            said += more
    assert process.wait(TIMEOUT) == 0
    os.close(master)
    lines = re.sub(r"\x1b\[[\d;]*m", "", said.decode()).splitlines()
    assert max(map(len, lines)) <= columns
    (row,) = (line.split() for line in lines if line.startswith("blk.*.ffn_up.weight"))
    assert row[-1] == "16,588,800"
    assert ("30" in row) is (columns == 100)
