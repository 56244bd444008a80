"""Tokenizers out of repositories, from a server that answers as the Hub does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.hub import HubServer, Repository, serving
from tests.tokenization.folders import FOLDERS
from torchgguf.tokenization import AutoTokenizer

TEXT = "Hello <tool> there"
_PROGRAM = """
import json, sys
from torchgguf import AutoTokenizer
told = []
for place in sys.argv[2:]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        told.append([tokenizer.encode(sys.argv[1]), sorted(tokenizer.chat_templates)])
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("repositories")
    for name in ("qwen2", "gpt2-old"):
        FOLDERS[name][0](root / name)
    return {name: root / name for name in ("qwen2", "gpt2-old")}


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> Iterator[HubServer]:
    repositories = {"me/empty": Repository({"main": {"config.json": b"{}", "notes.json": b"{}"}})}
    for name, folder in folders.items():
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        repositories[f"me/{name}"] = Repository({"main": {n: p.read_bytes() for n, p in files.items()}})
    with serving(repositories) as server:
        yield server


def test_from_repositories(hub: HubServer, folders: dict[str, Path], tmp_path: Path) -> None:
    places = [f"me/{name}" for name in folders]
    command = [sys.executable, "-c", _PROGRAM, TEXT, *places, "me/empty", "me/nobody"]
    done = subprocess.run(command, env=hub.environment(tmp_path), capture_output=True, text=True)
    *found, empty, nobody = json.loads(done.stdout)
    for (ids, templates), folder in zip(found, folders.values(), strict=True):
        expected = AutoTokenizer.from_pretrained(folder)
        assert ids == expected.encode(TEXT)
        assert templates == sorted(expected.chat_templates)
    assert empty == (
        "FileNotFoundError: there is no file tokenizer.json or tokenizer.model or vocab.json "
        "in the repository me/empty (there: config.json, notes.json)"
    )
    assert nobody.startswith("FileNotFoundError: there is no folder me/nobody, and no such repository")
    sent = hub.sent
    command[4:] = places
    again = subprocess.run(command, env=hub.environment(tmp_path), capture_output=True, text=True)
    assert json.loads(again.stdout) == found
    assert hub.sent == sent  # nothing is fetched twice
