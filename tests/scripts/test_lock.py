"""The lock files hold what pyproject.toml requires, and the script that writes them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import lock  # (a script, not a package)
from requirements import requirements

DEV = lock.read(ROOT / "requirements" / "dev.lock")
OLDEST = lock.read(ROOT / "requirements" / "oldest.lock")


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """Write a wheel that contains nothing and requires `needs`."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *needs]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "\nRequires-Dist: ".join(metadata) + "\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    ("pins", "extras"), [(DEV, ("test", "dev")), (OLDEST, ("test", "sentencepiece"))], ids=["dev", "oldest"]
)
def test_locked_versions_are_in_the_ranges(pins: dict[str, str], extras: tuple[str, ...]) -> None:
    for requirement in map(Requirement, requirements(*extras)):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert "pip" in pins


def test_oldest_versions_are_where_the_ranges_begin() -> None:
    for requirement in map(Requirement, requirements()):
        pin = OLDEST[canonicalize_name(requirement.name)]
        (beginning,) = [each.version for each in requirement.specifier if each.operator == ">="]
        assert pin in Requirement(f"{requirement.name}=={beginning}").specifier


@pytest.mark.parametrize("pins", [DEV, OLDEST], ids=["dev", "oldest"])
def test_packages_are_in_order(pins: dict[str, str]) -> None:
    assert list(pins) == sorted(map(canonicalize_name, pins))


def test_oldest_of_a_range() -> None:
    assert lock.oldest("torch>=2.6") == "torch==2.6"
    assert lock.oldest("tokenizers<1,>=0.22.1") == "tokenizers==0.22.1"
    assert lock.oldest("ninja") == "ninja"


def test_what_others_need_is_locked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, "torch", "2.0+cpu", "nvidia-cublas", "Some_Part>=1")
    wheel(tmp_path, "some_part", "1.0")
    wheel(tmp_path, "some_part", "1.5")
    wheel(tmp_path, "some_part", "2.0")
    wheel(tmp_path, "nvidia_cublas", "12")
    wheel(tmp_path, "tool", "3", "some-part<2")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert lock.resolve(["torch", "tool>=1"]) == {"some-part": "1.5", "tool": "3", "torch": "2.0"}


def test_a_conflict_ends_with_the_words_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path, "part", "1")
    wheel(tmp_path, "tool", "3", "part>1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SystemExit):
        lock.resolve(["tool"])
    assert "part>1" in capfd.readouterr().err


def test_differences_of_two_locks(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("# words\na==1.10\nb==2\ngone==1\n")
    (tmp_path / "new").write_text("# words\na==1.9\nadded==0.1\nb==2\n")
    command = [sys.executable, ROOT / "scripts" / "lock.py", "compare", tmp_path / "old"]
    shown = subprocess.run([*command, tmp_path / "new"], check=True, capture_output=True, text=True).stdout
    assert [line.split() for line in shown.splitlines()] == [
        ["a", "1.10", "->", "1.9"],
        ["added", "(absent)", "->", "0.1"],
        ["gone", "1", "->", "(absent)"],
    ]
    same = subprocess.run([*command, tmp_path / "old"], check=True, capture_output=True, text=True).stdout
    assert same == "nothing changes\n"
