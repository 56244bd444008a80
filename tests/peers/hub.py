"""A server on loopback that answers as the Hugging Face Hub does, to the few questions that fetching asks.

What is served is a `Repository` a name; what was asked is kept in `requests`. Clients learn of the server
from `environment`, in a process of their own: huggingface_hub asks for its Hub's address only once.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_of_a_friend"  # the one that is let in everywhere


@dataclass
class Repository:
    """Files by name, by branch; `main` is where others get what they lack.

    Attributes:
        branches: the files of each branch.
        closed: what is said to those without the token: nothing, or "private" or "gated".
        drops: for each file the places at which connections break off, once each, the first one first.
        ranges: whether parts of files can be asked for.
    """

    branches: dict[str, dict[str, bytes]]
    closed: str = ""
    drops: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True

    def commit(self, branch: str) -> str:
        """The name of what a branch holds."""
        digest = hashlib.sha1()
        for name, content in sorted(self.branches[branch].items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()

    def branch(self, revision: str) -> str | None:
        """The branch of this name or commit."""
        return next((b for b in self.branches if revision in (b, self.commit(b))), None)


@dataclass
class Request:
    """What was asked, names of headers in small letters, and how many bytes were sent for it."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: "HubServer"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        headers = {name.lower(): value for name, value in self.headers.items()}
        # Before the answer: a client that has it may ask again at once, in another thread.
        self.asked = Request(self.command, path, headers)
        self.server.requests.append(self.asked)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) > 4:
            self._about("/".join(parts[2:4]), parts[4], "/".join(parts[5:]))
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815  (the names are http.server's)

    def _about(self, name: str, kind: str, revision: str) -> None:
        if (found := self._find(name, revision)) is None:
            return
        repository, branch = found
        if kind == "revision":
            names = [{"rfilename": name} for name in repository.branches[branch]]
            about = {"id": name, "sha": repository.commit(branch), "siblings": names}
            self._answer(json.dumps(about).encode())
        elif kind == "tree":
            files = repository.branches[branch].items()
            tree = [{"type": "file", "path": n, "size": len(c), "oid": _etag(c)} for n, c in files]
            self._answer(json.dumps(tree).encode())
        else:
            self._refuse(404, "RepoNotFound")

    def _find(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.server.repositories.get(name)
        if self.server.broken:
            self._refuse(503)
        elif repository is None:
            self._refuse(401, "RepoNotFound")
        elif self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository.closed and self.headers.get("Authorization") is None:
            self._refuse(401, "GatedRepo" if repository.closed == "gated" else "RepoNotFound")
        elif (branch := repository.branch(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return repository, branch
        return None

    def _file(self, repository_name: str, revision: str, name: str) -> None:
        if (found := self._find(repository_name, revision)) is None:
            return
        repository, branch = found
        commit = {"X-Repo-Commit": repository.commit(branch)}
        content = repository.branches[branch].get(name)
        if content is None:
            self._refuse(404, "EntryNotFound", "", commit)
            return
        headers = {**commit, "ETag": f'"{_etag(content)}"'}
        drops = repository.drops.get(name, []) if self.command == "GET" else []
        drop = drops.pop(0) if drops else None
        if repository.ranges and (asked := self.headers.get("Range")):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(content) - 1) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            self._answer(content[start:end], headers, 206, drop and drop - start)
        else:
            self._answer(content, headers, drop=drop)

    def _answer(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        status: int = 200,
        drop: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.asked.sent = len(body if drop is None else body[:drop])
            self.wfile.write(body[:drop])
        if drop is not None:
            self.close_connection = True

    def _refuse(
        self, status: int, code: str = "", message: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._answer(b"", {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}, status)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


class HubServer(ThreadingHTTPServer):
    """The server; `requests` grows with what is asked. `broken`: it answers, but is out of order."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories
        self.requests: list[Request] = []
        self.broken = False

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """The environment of a process for which this is the Hub, and `cache` where it keeps files."""
        own = {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))
        }
        return inherited | own | more

    @property
    def sent(self) -> int:
        """How many bytes of files have been sent."""
        return sum(request.sent for request in self.requests if "/resolve/" in request.path)


@contextmanager
def serving(others: Mapping[str, Repository] | None = None, /, **mine: Repository) -> Iterator[HubServer]:
    """Serve repositories by their names, and those given by keyword as `me/<keyword>`."""
    repositories = {f"me/{name}": repository for name, repository in mine.items()}
    with HubServer({**(others or {}), **repositories}) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Client:
    """A process that calls functions of `torchgguf.hub`, one after the other."""

    _PROGRAM = """
import json, sys
import torchgguf.hub as hub
for line in sys.stdin:
    function, arguments, options = json.loads(line)
    try:
        found = getattr(hub, function)(*arguments, **options)
        answer = {"found": [str(path) for path in (found if isinstance(found, list) else [found])]}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
"""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, function: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """`found`: the paths returned; or `error` and `message`."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._process.stdin.write(json.dumps([function, arguments, options]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._process.stderr.read()
        told: dict[str, Any] = json.loads(answer)
        return told

    def find(self, function: str, *arguments: Any, **options: Any) -> list[Path]:
        """The paths returned."""
        told = self.call(function, *arguments, **options)
        assert "found" in told, told
        return [Path(path) for path in told["found"]]

    def error(self, function: str, *arguments: Any, **options: Any) -> str:
        """The error, as in `FileNotFoundError: there is none`."""
        told = self.call(function, *arguments, **options)
        assert "error" in told, told
        return f"{told['error']}: {told['message']}"

    def close(self) -> str:
        """End the process; return what it said on standard error."""
        return self._process.communicate(timeout=60)[1]


@cache
def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
