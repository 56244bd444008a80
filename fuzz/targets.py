"""What is tried: each target makes an input of a seed, and loads it as a user would.

A target may raise the errors that are documented for a broken file, of one line. All else is a finding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

import torchgguf
from fuzz import mutations
from fuzz.documents import FolderDocument, GGUFDocument
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import CheckpointError
from torchgguf.tokenization import TokenizerError

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """One thing to try.

    Attributes:
        seeds: a pattern of the names of its files in the corpus.
        load: loads what lies at a path.
        errors: that `load` may raise.
    """

    seeds: str
    load: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]

    def make(self, seed: int, at: int) -> bytes | dict[str, bytes]:
        """Return the input of this number: a file, or the files of a folder."""
        random = Random(f"{seed}:{at}")
        documents = _documents(self.seeds)
        document = documents[random.randrange(len(documents))]
        if isinstance(document, FolderDocument):
            return mutations.folder(random, document)
        return mutations.gguf(random, document)

    def attempt(self, path: Path) -> str | None:
        """Load what is at a path; return what is wrong with the error, if anything is."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.load(path)
            except self.errors as error:
                text = str(error)
                return None if "\n" not in text and len(text) < 4000 else f"a long error: {text[:200]!r}"
            except FileNotFoundError as error:  # an index may name files that do not exist
                return None if path.is_dir() else f"{error!r}"
        return None


@cache
def _documents(pattern: str) -> list[GGUFDocument | FolderDocument]:
    paths = sorted(CORPUS.glob(pattern))
    return [
        FolderDocument.read(path) if path.suffix == ".json" else GGUFDocument.read(path) for path in paths
    ]


def put(contents: bytes | dict[str, bytes], folder: Path) -> Path:
    """Write an input into an empty folder, and return its path."""
    if isinstance(contents, bytes):
        path = folder / "input.gguf"
        path.write_bytes(contents)
        return path
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def _header(path: Path) -> None:
    with open_gguf(path) as file:
        for name in file:
            file[name].reshape(-1)[:1].tolist()


def _model(path: Path) -> None:
    model = torchgguf.AutoModelForCausalLM.from_pretrained(path)
    if model.config.vocab_size > 0 and model.num_parameters() < 1 << 20:
        with torch.no_grad():
            model(torch.zeros(1, 2, dtype=torch.long), use_cache=False)


def _tokenizer(path: Path) -> None:
    tokenizer = torchgguf.AutoTokenizer.from_pretrained(path)
    tokenizer.decode(tokenizer("Hello, wörld 123 <s>")["input_ids"][:64])


TARGETS = {
    "header": Target("*.gguf", _header, (GGUFError,)),
    "model": Target("[!v]*.gguf", _model, (GGUFError,)),
    "tokenizer": Target("*.gguf", _tokenizer, (GGUFError, TokenizerError)),
    "checkpoint": Target("*.folder.json", _model, (CheckpointError,)),
    "tokenizer-files": Target("*.folder.json", _tokenizer, (TokenizerError, CheckpointError)),
}
