"""`torchgguf info` tells what gguf-py reads from the same file."""

import json

import gguf
import pytest

from tests.support import SMOLLM2


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
    result = torchgguf("info", SMOLLM2)
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
