"""A Hub on loopback with stand-ins for what a page names, and a process in which its snippets run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages.notebook import Notebook
from tests.peers.hub import HubServer, Repository, serving


@pytest.fixture(scope="module")
def hub(repositories) -> Iterator[HubServer]:
    """Serves the `repositories` of a module: files by name, by repository."""
    with serving({name: Repository({"main": files}) for name, files in repositories.items()}) as server:
        yield server


@pytest.fixture(scope="module")
def folders(repositories, tmp_path_factory) -> Path:
    """Where the repositories are as folders: transformers, run here, takes them for those it asks for."""
    root = tmp_path_factory.mktemp("folders")
    for repository, files in repositories.items():
        (root / repository).mkdir(parents=True)
        for name, content in files.items():
            (root / repository / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def notebook(hub, tmp_path_factory) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    notebook = Notebook(hub.environment(folder / "cache", **settings), folder)
    yield notebook
    notebook.close()
