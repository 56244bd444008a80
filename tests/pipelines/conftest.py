"""Tiny GPT-2s of transformers with each head, GPT-2's own tokenizer, and the same of this package."""

import json
from typing import Any, NamedTuple

import pytest
import torch
import transformers

import torchgguf
from tests.support import VOCABS
from torchgguf import AutoTokenizer, open_gguf

VOCAB = VOCABS / "ggml-vocab-gpt-2.gguf"
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}


class Pair(NamedTuple):
    """A model there and here, and their tokenizers."""

    theirs: Any
    ours: Any
    their_tokenizer: Any
    our_tokenizer: Any


@pytest.fixture(scope="session")
def their_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    with open_gguf(VOCAB) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        merges = file.metadata["tokenizer.ggml.merges"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    return transformers.GPT2TokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="session")
def pair(their_tokenizer):
    """`pair("ForTokenClassification", num_labels=5)`: random, but always the same."""

    def make(head: str, **config: Any) -> Pair:
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
        their_config = transformers.GPT2Config(**{**sizes, **config})
        theirs = getattr(transformers, f"GPT2{head}")(their_config).eval()
        ours = getattr(torchgguf, f"GPT2{head}")(torchgguf.GPT2Config(**{**sizes, **config})).eval()
        ours.load_state_dict(theirs.state_dict())
        return Pair(theirs, ours, their_tokenizer, AutoTokenizer.from_pretrained(VOCAB))

    return make
