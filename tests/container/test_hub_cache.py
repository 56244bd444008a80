"""In the Hub's cache blobs are shared and named by their hashes: writing replaces the links to them."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from torchgguf.container import edit_metadata, merge_gguf, open_gguf, split_gguf, write_gguf
from torchgguf.container.atomic import written_place
from torchgguf.container.editing.overwriting import locked
from torchgguf.container.errors import GGUFError
from torchgguf.conversion import requantize

NAME = "model.gguf"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cached(repository: Path, file: Path, name: str = NAME) -> list[Path]:
    """Put a file into a cache as huggingface_hub does: one blob, and a link in each of two snapshots."""
    blob = repository / "blobs" / sha256(file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, blob)
    links = []
    for commit in ("a" * 40, "b" * 40):
        link = repository / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (1 + len(Path(name).parts)), "blobs", blob.name))
        links.append(link)
    return links


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with room for edits in place."""
    file = tmp_path / "source.gguf"
    write_gguf(file, {"general.architecture": "llama", "general.name": "old"}, {"w": torch.ones(4, 64)})
    edit_metadata(file, {"general.name": "first"}, room=4096)
    assert edit_metadata(file, {"general.name": "old"}).in_place
    return file


def assert_replaced(links: list[Path], name: str) -> None:
    """The first snapshot has its own file now; blob and second snapshot are as they were."""
    first, second = links
    assert not first.is_symlink()
    assert open_gguf(first).metadata["general.name"] == name
    assert second.is_symlink()
    assert sha256(second) == second.resolve().name
    assert open_gguf(second).metadata["general.name"] == "old"
    assert list(second.resolve().parent.iterdir()) == [second.resolve()]
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("name", [NAME, "Q8_0/model.gguf"])
def test_a_link_in_a_snapshot_is_replaced(tmp_path: Path, file: Path, name: str) -> None:
    links = cached(tmp_path / "models--me--tiny", file, name)
    links[0].resolve().chmod(0o640)
    write_gguf(links[0], {"general.name": "new"}, {})
    assert_replaced(links, "new")
    assert links[0].stat().st_mode & 0o777 == 0o640
    write_gguf(links[0], {"general.name": "newer"}, {})
    assert_replaced(links, "newer")


def test_metadata_are_edited_in_a_file_of_its_own(tmp_path: Path, file: Path) -> None:
    links = cached(tmp_path / "models--me--tiny", file)
    assert edit_metadata(links[0], {"general.name": "new"}) == (links[0], False)
    assert_replaced(links, "new")
    assert torch.equal(open_gguf(links[0])["w"], torch.ones(4, 64))
    assert edit_metadata(links[0], {"general.name": "newer"}).in_place  # nobody shares it
    assert_replaced(links, "newer")


def test_a_link_that_was_replaced_before_it_was_locked(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = cached(tmp_path / "models--me--tiny", file)
    resolve = Path.resolve

    def resolve_then_lose(path: Path, strict: bool = False) -> Path:
        found = resolve(path, strict)
        if path == first and path.is_symlink():
            path.unlink()
            shutil.copy(file, path)
        return found

    monkeypatch.setattr(Path, "resolve", resolve_then_lose)
    with pytest.raises(GGUFError, match="has just replaced it"), locked(first):
        pass


def test_links_of_the_user(tmp_path: Path, file: Path) -> None:
    """They are followed to the snapshot, where the link is replaced; one that leads to a blob is replaced."""
    links = cached(tmp_path / "models--me--tiny", file)
    own = tmp_path / "own.gguf"
    own.symlink_to(links[0])
    write_gguf(own, {"general.name": "new"}, {})
    assert own.is_symlink()
    assert_replaced(links, "new")
    direct = tmp_path / "direct.gguf"
    direct.symlink_to(links[1].resolve())
    write_gguf(direct, {"general.name": "newer"}, {})
    assert not direct.is_symlink()
    assert_replaced(links, "new")


@pytest.mark.parametrize("folder", ["blobs", "models--me--tiny/files", "models--me--tiny/blobs"])
def test_other_folders_are_no_cache(tmp_path: Path, file: Path, folder: str) -> None:
    target = tmp_path / folder / "x.gguf"
    target.parent.mkdir(parents=True)
    shutil.copy(file, target)
    link = tmp_path / "link.gguf"
    link.symlink_to(target)
    assert written_place(link) == target
    assert edit_metadata(link, {"general.name": "new"}).in_place
    assert link.is_symlink()
    assert open_gguf(target).metadata["general.name"] == "new"


def test_where_links_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "to").symlink_to("folder")
    (tmp_path / "missing").symlink_to("folder/none")
    (tmp_path / "up").symlink_to("folder/..")
    for path in (".", "..", "/", "x", "to", "to/x", "to/..", "missing", "up"):
        assert written_place(path) == Path(path).resolve()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="circle"):
        written_place("circle")
    with pytest.raises(OSError, match="circle"):
        write_gguf("circle", {}, {})


def test_what_is_read_is_not_replaced(tmp_path: Path, file: Path) -> None:
    first, second = links = cached(tmp_path / "models--me--tiny", file)
    with pytest.raises(ValueError, match="is a file to read"):
        requantize(first, first, "Q8_0")
    requantize(second, first, "Q8_0")  # another snapshot's link
    assert_replaced(links, "old")
    parts = split_gguf(file, tmp_path / "part", max_tensors=1, tensors_in_first=False)
    snapshot = [cached(tmp_path / "models--me--parts", part, part.name)[0] for part in parts]
    with pytest.raises(ValueError, match="one of the files to merge"):
        merge_gguf(snapshot[0], snapshot[1])
