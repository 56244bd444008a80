"""Checkpoints and GGUF files from a repository, on a server that answers as the Hugging Face Hub does."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.models.tiny import CASES, counterpart, reference
from tests.peers.hub import Repository, serving

PROGRAM = """
import sys
from safetensors.torch import save_file
from torchgguf import AutoConfig, AutoModel, AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("me/llama")
save_file({name: value for name, value in model.state_dict().items()}, "online.safetensors")
assert AutoConfig.from_pretrained("me/llama", revision="wide").hidden_size == 96
again = AutoModelForCausalLM.from_pretrained("me/llama", local_files_only=True)
save_file({name: value for name, value in again.state_dict().items()}, "offline.safetensors")
packed = AutoModelForCausalLM.from_pretrained("me/llama", gguf_file="model.gguf", dequantize=True)
save_file({name: value for name, value in packed.state_dict().items()}, "gguf.safetensors")
for name in ("me/empty", "me/nothing"):
    try:
        AutoModel.from_pretrained(name)
    except FileNotFoundError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What one process saw: the folder in which it worked, what it said, and which files it asked for."""
    folder = tmp_path_factory.mktemp("hub")
    theirs = reference(CASES["llama"])
    theirs.save_pretrained(folder / "repo", max_shard_size="100KB")
    counterpart(theirs).save_gguf(folder / "repo" / "model.gguf")
    files = {path.name: path.read_bytes() for path in (folder / "repo").iterdir()}
    wide = files["config.json"].replace(b'"hidden_size": 64', b'"hidden_size": 96')
    extra = {"README.md": b"# Read me", "pytorch_model.bin": b"not for us", "code.py": b"raise SystemExit"}
    with serving(
        llama=Repository({"main": files | extra, "wide": files | {"config.json": wide}}),
        empty=Repository({"main": {"config.json": files["config.json"]}}),
    ) as server:
        environment = server.environment(folder / "cache")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        asked = {request.path.rpartition("/")[2] for request in server.requests if request.sent}
    return folder, done.stdout.splitlines(), asked


@pytest.mark.parametrize("way", ["online", "offline", "gguf"])
def test_weights(answers, way):
    tensors = load_file(answers[0] / f"{way}.safetensors")
    for name, value in reference(CASES["llama"]).state_dict().items():
        assert torch.equal(tensors[name], value), name


def test_only_what_is_needed_is_fetched(answers):
    assert {"config.json", "model-00002-of-00006.safetensors", "model.gguf"} <= answers[2]
    assert not answers[2] & {"README.md", "pytorch_model.bin", "code.py"}


def test_what_is_missing_is_named(answers):
    empty, nothing = answers[1]
    assert "model.safetensors" in empty and "me/empty" in empty
    assert "me/nothing" in nothing
