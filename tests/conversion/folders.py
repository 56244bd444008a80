"""Hugging Face folders as people publish them: a tiny model, its tokenizer, and what is said of it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.models.tiny import CASES, reference
from tests.peers.vocabularies import BYTE_LEVEL, add_tokenizer

CARD = """---
license: apache-2.0
language: [en, de]
tags: [tiny, test]
base_model: someone/Base-1B
---
# Tiny
"""
GENERATION = {
    "do_sample": True,
    "top_k": 20,
    "top_p": 0.8,
    "min_p": 0.05,
    "repetition_penalty": 1.05,
    "eos_token_id": [2, 1],
}


def publish(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the folder of one of the tiny models."""
    model = reference(CASES[name]).to(dtype)
    model.save_pretrained(folder)
    add_tokenizer(folder, model.config.model_type)
    return folder


def rule_of(name: str) -> str | None:
    """How the tokenizer of a tiny model splits texts, which ours is too small to be recognized by."""
    return BYTE_LEVEL.get(reference(CASES[name]).config.model_type)


def describe(folder: Path, temperature: float = 0.7) -> None:
    """Add what is said of a model: its card, how to draw tokens, how to talk to it."""
    (folder / "README.md").write_text(CARD)
    (folder / "generation_config.json").write_text(json.dumps({**GENERATION, "temperature": temperature}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")


def pickle(folder: Path, zipped: bool = True) -> None:
    """Replace the weights by a file of torch's."""
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    weights.unlink()


def shard(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> None:
    """Replace the weights by several files."""
    reference(CASES[name]).to(dtype).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink()
