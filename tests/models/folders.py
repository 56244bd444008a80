"""Hugging Face checkpoints of tiny models, with something changed."""

import json

import torch
from safetensors.torch import load_file, save_file

from tests.models.tiny import CASES, reference


def save_references(names, folder):
    """Let transformers save the tiny models of these names, and return the folder."""
    for name in names:
        reference(CASES[name]).save_pretrained(folder / name)
    return folder


def change_config(folder, **values):
    """Set values in a config.json; None takes one away."""
    path = folder / "config.json"
    contents = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in contents.items() if value is not None}))


def change_tensors(folder, change):
    """Write the tensors again after a change to the dict of them."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def said(caplog):
    """What was logged by this package."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("torchgguf")]


def assert_same_weights(theirs, ours):
    """All parameters are equal, and called the same."""
    expected, actual = theirs.state_dict(), ours.state_dict()
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name
