"""Finding files by path and, from a server that answers as the Hub does, by repository."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from torchgguf.hub import find_gguf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARDS = [f"Q8/big-{i}-of-00003.gguf" for i in ("00001", "00002", "00003")]
FILES = {name: name.encode() for name in (*SHARDS, "small[1].gguf", "other.gguf")}


class Hub(BaseHTTPRequestHandler):
    """The few answers that fetching from `me/model` takes."""

    def do_GET(self):
        path = self.path.partition("?")[0].replace("%5B", "[").replace("%5D", "]")
        if path == "/api/models/me/model/revision/main":
            self.answer(json.dumps({"id": "me/model", "sha": COMMIT}).encode())
        elif path.startswith("/api/models/me/model/tree/"):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in FILES.items()]
            self.answer(json.dumps(tree).encode())
        elif (name := path.split("/", 5)[-1]) in FILES:
            self.answer(FILES[name], {"ETag": f'"{hash(name)}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def answer(self, body, headers=None):
        self.send_response(200)
        for key, value in {"Content-Length": len(body), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def find(hub, cache, *arguments, **options):
    """`find_gguf` in a process of its own: what the Hub's address is, its client asks only once."""
    program = "import sys; from torchgguf.hub import find_gguf; "
    program += f"print(find_gguf(*{arguments!r}, cache_dir={str(cache)!r}, **{options!r}))"
    settings = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_all_shards_are_fetched_and_nothing_else(hub, tmp_path):
    found = Path(find(hub, tmp_path, "me/model", SHARDS[1]).stdout.strip())
    assert found.read_bytes() == FILES[SHARDS[1]]
    folder = found.parents[1]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.gguf")} == {*SHARDS}
    again = find("http://127.0.0.1:9", tmp_path, "me/model", SHARDS[0], local_files_only=True)
    assert again.stdout.strip() == str(folder / SHARDS[0])


def test_one_file(hub, tmp_path):
    found = Path(find(hub, tmp_path, "me/model", "small[1].gguf").stdout.strip())
    assert [path.name for path in found.parent.iterdir()] == ["small[1].gguf"]
    nothing = find(hub, tmp_path, "me/model", "nothing.gguf").stderr
    assert "FileNotFoundError: there is no file nothing.gguf in the repository me/model" in nothing


def test_paths(tmp_path):
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    assert find_gguf(file) == find_gguf(tmp_path, "a.gguf") == find_gguf(str(file)) == file
    with pytest.raises(FileNotFoundError, match=r"is a folder: name a \.gguf file in it \(there: a\.gguf\)"):
        find_gguf(tmp_path)
    for arguments in [(tmp_path / "b.gguf",), (tmp_path, "b.gguf"), (file, "b.gguf")]:
        with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.gguf"):
            find_gguf(*arguments)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        find_gguf(tmp_path / "nowhere", "b.gguf")
    with pytest.raises(TypeError, match="revison"):
        find_gguf(file, revison="main")
