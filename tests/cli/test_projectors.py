"""Projectors of images and sound (mmproj): files that models of text come with."""

from pathlib import Path

import gguf
import pytest

from tests.models.files import edited
from tests.peers.hub import Repository, serving
from torchgguf import AutoModelForCausalLM, GGUFError, LlamaConfig, LlamaForCausalLM

LINE = "mmproj-F16.gguf: beside it, for images or sound; only text is supported"
WHAT = "the file is a projector of images or sound (mmproj), not a model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of text, and beside it a projector."""
    place = tmp_path_factory.mktemp("vision")
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    LlamaForCausalLM(config).save_gguf(place / "model.gguf")
    writer = gguf.GGUFWriter(place / "mmproj-F16.gguf", "clip")
    writer.add_type("mmproj")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return place


@pytest.fixture
def alone(folder, tmp_path) -> Path:
    return edited(folder / "model.gguf", tmp_path / "model.gguf")


def test_of_a_file(folder, alone, torchgguf):
    assert LINE in " ".join(torchgguf("info", folder / "model.gguf").stdout.split())
    for path in (alone, folder / "mmproj-F16.gguf"):
        assert "beside it" not in torchgguf("info", path).stdout


def test_of_a_prompt(folder, alone, torchgguf):
    """The model has no vocabulary: what is noted comes before that error."""
    assert torchgguf("run", folder / "model.gguf", "Hello").stderr.splitlines()[0] == LINE
    assert "beside it" not in torchgguf("run", alone, "Hello").stderr


def test_in_a_repository(folder, tmp_path, torchgguf):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with serving(vision=Repository({"main": {**files, "more/MMPROJ-BF16.gguf": b""}})) as hub:
        shown = torchgguf("info", "me/vision:model.gguf", env=hub.environment(tmp_path)).stdout
        assert "and 1 more: beside it" in " ".join(shown.split())
        hub.broken = True
        silent = torchgguf("info", "me/vision:model.gguf", env=hub.environment(tmp_path))
        assert silent.returncode == 1


@pytest.mark.parametrize("metadata", [{}, {"general.type": None}], ids=["new", "old"])
def test_the_projector_itself(folder, tmp_path, metadata, torchgguf):
    path = edited(folder / "mmproj-F16.gguf", tmp_path / "mmproj.gguf", metadata=metadata)
    with pytest.raises(GGUFError) as raised:
        AutoModelForCausalLM.from_pretrained(path)
    assert WHAT in str(raised.value) and "\n" not in str(raised.value)
    failed = torchgguf("run", path, "Hello")
    assert failed.returncode == 1 and WHAT in failed.stderr
    assert "clip" in torchgguf("info", path).stdout
