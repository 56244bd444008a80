"""`--no-mmap` reads the file into memory, and changes no answer."""

import pytest
from typer.testing import CliRunner

from tests.conversion.folders import publish
from torchgguf.cli import app
from torchgguf.conversion import convert_to_gguf


@pytest.mark.parametrize("task", ["text-generation", "feature-extraction"])
def test_answers(tmp_path, task):
    convert_to_gguf(publish("llama", tmp_path / "hf"), tmp_path / "tiny.gguf", quantization="Q8_0")
    own = ["-n", "3", "-t", "0", "--no-stats"] if task == "text-generation" else []
    command = ["run", str(tmp_path / "tiny.gguf"), "a", "--task", task, *own]
    mapped, unmapped = (CliRunner().invoke(app, [*command, *more]) for more in ([], ["--no-mmap"]))
    assert mapped.exit_code == unmapped.exit_code == 0, unmapped.output
    assert mapped.stdout == unmapped.stdout != ""
