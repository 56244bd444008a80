"""How files tell layers with attention from others: by numbers of heads; llama.cpp's own writer, twice."""

from pathlib import Path

import pytest
import torch

from tests.models.tiny import CASES, Case, counterpart, reference
from torchgguf.container import GGUFError, open_gguf, write_gguf
from torchgguf.models import AutoModelForCausalLM, Lfm2Config

CONVOLUTIONS = ["conv", "full_attention", "conv"]
TWICE = {"head_count": [0, 4, 0], "recurrent_layers": [1, 0, 1]}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("kinds") / "lfm2.gguf"
    counterpart(reference(CASES["lfm2"])).save_gguf(path)
    return path


def stated(path: Path, out: Path, changes: dict[str, object]) -> Path:
    """The file with other metadata."""
    with open_gguf(path) as file:
        metadata = file.metadata.copy()
        for key, value in changes.items():
            name = f"lfm2.attention.{key}"
            metadata.pop(name, None)
            if value is not None:
                metadata[name] = value
        write_gguf(out, metadata, file.sources())
    return out


@torch.no_grad()
def test_stated_twice(path, tmp_path):
    ids = torch.arange(9)[None]
    model = AutoModelForCausalLM.from_pretrained(stated(path, tmp_path / "twice.gguf", TWICE))
    assert (model.config.num_attention_heads, model.config.layer_types) == (4, CONVOLUTIONS)
    assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(path)(ids).logits)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "twice.gguf").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**TWICE, "recurrent_layers": [1, 1, 0]},
            r"recurrent_layers = \[1, 1, 0\] contradicts .*head_count_kv",
        ),
        ({"head_count": [0, 4, 0]}, r"head_count must be one int, got \[0, 4, 0\]"),
        ({"head_count_kv": [2, 1, 0]}, r"head_count_kv must be 0 or the same in all layers, got \[2, 1, 0\]"),
        ({"head_count_kv": [0, 2]}, r"head_count_kv must be 3 integers from 0 to \d+, got \[0, 2\]"),
        ({"head_count_kv": [0, -2, 0]}, r"head_count_kv must be 3 integers from 0 to \d+, got \[0, -2, 0\]"),
        ({"head_count_kv": None}, "missing tensors: .*blk.0.attn_q"),
    ],
    ids=str,
)
def test_contradictions(path, tmp_path, changes, message):
    with pytest.raises(GGUFError, match=message):
        AutoModelForCausalLM.from_pretrained(stated(path, tmp_path / "out.gguf", changes))


@pytest.mark.parametrize("kind", ["conv", "full_attention"])
@torch.no_grad()
def test_layers_of_one_kind(kind, tmp_path):
    model = counterpart(reference(Case("Lfm2", {"layer_types": [kind] * 3})))
    model.save_gguf(tmp_path / "out.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out.gguf")
    assert loaded.config.layer_types == [kind] * 3
    ids = torch.arange(9)[None]
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_kinds_must_be_known():
    with pytest.raises(ValueError, match="must name 'full_attention' or 'conv' once for each of 3 layers"):
        Lfm2Config(num_hidden_layers=3, layer_types=["conv", "mamba"])
