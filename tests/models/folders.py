"""Hugging Face checkpoints of tiny models, with something changed."""

import json

from safetensors.torch import load_file, save_file


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
