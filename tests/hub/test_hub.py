"""Finding files by path and, from a server that answers as the Hub does, by repository."""

import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.peers.hub import TOKEN, Client, HubServer, Repository, serving
from torchgguf.container import GGUFError
from torchgguf.container.reading.header import fetch_header
from torchgguf.hub import find_file, find_files, find_folder, find_gguf
from torchgguf.hub.reachability import alike

SHARDS = [f"Q8/big-{i}-of-00003.gguf" for i in ("00001", "00002", "00003")]
FILES = {name: name.encode() for name in (*SHARDS, "small[1].gguf", "other.gguf", "config.json", "model.bin")}
LARGE = bytes(range(256)) * (12 << 12)  # 12 MiB: huggingface_hub keeps what came in pieces of 10 MiB

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    old = {**FILES, "config.json": b"as it was"}
    with serving(
        model=Repository({"main": FILES, "old": old}),
        changing=Repository({"main": {"a.txt": b"first", "b.txt": b"stays"}}),
        secret=Repository({"main": {"a.txt": b"private"}}, closed="private"),
        gated=Repository({"main": {"a.txt": b"gated"}}, closed="gated"),
        flaky=Repository({"main": {"large.bin": LARGE}}, drops={"large.bin": [11 << 20, 12_000_000]}),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory) -> Iterator[Client]:
    """One that lives for all tests of this file."""
    client = Client(hub.environment(tmp_path_factory.mktemp("cache")))
    yield client
    client.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Start a client in an environment."""
    clients = []

    def start(environment) -> Client:
        clients.append(Client(environment))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def test_all_shards_are_fetched_and_nothing_else(hub, client, tmp_path):
    (found,) = client.find("find_gguf", "me/model", SHARDS[1], cache_dir=str(tmp_path))
    assert found.read_bytes() == FILES[SHARDS[1]]
    folder = found.parents[1]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {*SHARDS}
    before = len(hub.requests)
    again = client.find("find_gguf", "me/model", SHARDS[0], cache_dir=str(tmp_path), local_files_only=True)
    assert again == [folder / SHARDS[0]]
    assert len(hub.requests) == before


def test_one_file(client, tmp_path):
    (found,) = client.find("find_gguf", "me/model", "small[1].gguf", cache_dir=str(tmp_path))
    assert [path.name for path in found.parent.iterdir()] == ["small[1].gguf"]
    assert client.error("find_gguf", "me/model", "nothing.gguf") == (
        "FileNotFoundError: there is no file nothing.gguf in the repository me/model "
        f"(there: {', '.join(SHARDS)}, other.gguf, small[1].gguf)"
    )


def test_the_first_of_several_names(client, tmp_path):
    names = ("model.safetensors", "model.bin", "other.gguf")
    (found,) = client.find("find_file", "me/model", *names, cache_dir=str(tmp_path))
    assert found.name == "model.bin"
    offline = {"cache_dir": str(tmp_path), "local_files_only": True}
    assert client.find("find_file", "me/model", *names, **offline) == [found]
    assert client.error("find_file", "me/model", "a.bin", "b.bin").startswith(
        "FileNotFoundError: there is no file a.bin or b.bin in the repository me/model (there: model.bin)"
    )


def test_several_files_come_of_one_commit(client):
    found = client.find("find_files", "me/model", ["config.json", SHARDS[0]], revision="old")
    assert [path.read_bytes() for path in found] == [b"as it was", FILES[SHARDS[0]]]
    assert found[0].parent == found[1].parents[1]
    assert "there is no file lost.json" in client.error(
        "find_files", "me/model", ["config.json", "lost.json"]
    )


def test_a_folder_has_what_is_like_the_patterns(hub, client, tmp_path):
    (found,) = client.find("find_folder", "me/model", ["c*.json", "Q8/*", "lost.*"], cache_dir=str(tmp_path))
    names = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    assert names == {"config.json", *SHARDS}
    assert found.name == hub.repositories["me/model"].commit("main")
    assert find_folder(tmp_path, ["anything"]) == tmp_path
    with pytest.raises(FileNotFoundError, match=r"there is no folder \./no/such/folder$"):
        find_folder("./no/such/folder", ["anything"])


def test_revisions(hub, client):
    commit = hub.repositories["me/model"].commit("old")
    for revision, expected in ((None, b"config.json"), ("old", b"as it was"), (commit, b"as it was")):
        (found,) = client.find("find_file", "me/model", "config.json", revision=revision)
        assert found.read_bytes() == expected
    assert client.error("find_file", "me/model", "config.json", revision="lost") == (
        "FileNotFoundError: the repository me/model has no revision lost"
    )


def test_what_has_been_fetched_is_fetched_again_only_if_it_changed(hub, client):
    repository = hub.repositories["me/changing"]
    names = ("a.txt", "b.txt")

    def fetched(**options) -> list[str]:
        before = len(hub.requests)
        for name in names:
            (found,) = client.find("find_file", "me/changing", name, **options)
            assert found.read_bytes() == repository.branches["main"][name]
        return [r.path.rpartition("/")[2] for r in hub.requests[before:] if r.method == "GET"]

    assert fetched() == ["a.txt", "b.txt"]
    assert fetched() == []
    repository.branches["main"]["a.txt"] = b"second"
    assert fetched() == ["a.txt"]
    assert fetched(force_download=True) == ["a.txt", "b.txt"]


def test_a_connection_that_breaks_off_goes_on_where_it_was(hub, client):
    before = len(hub.requests)
    (found,) = client.find("find_file", "me/flaky", "large.bin")
    assert found.read_bytes() == LARGE
    asked = [request for request in hub.requests[before:] if request.method == "GET"]
    assert [request.headers.get("range") for request in asked] == [None, "bytes=10485760-", "bytes=10485760-"]
    assert sum(request.sent for request in asked) < 1.5 * len(LARGE)


@pytest.mark.parametrize("name", ["secret", "gated"])
def test_the_token_opens_what_is_closed(hub, client, name):
    (found,) = client.find("find_file", f"me/{name}", "a.txt", token=TOKEN)
    assert found.read_bytes() == hub.repositories[f"me/{name}"].branches["main"]["a.txt"]
    assert hub.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_stored_token_is_used_unless_told_not_to(hub, connect, tmp_path):
    client = connect(hub.environment(tmp_path, HF_TOKEN=TOKEN))
    for options, sent in (
        ({}, f"Bearer {TOKEN}"),
        ({"token": False}, None),
        ({"token": True}, f"Bearer {TOKEN}"),
    ):
        client.find("find_file", "me/model", "config.json", **options)
        assert hub.requests[-1].headers.get("authorization") == sent


@pytest.mark.parametrize(
    "repository, options, said",
    [
        (
            "me/lost",
            {},
            r"FileNotFoundError: there is no folder me/lost, and no such repository at http://.*token",
        ),
        ("me/secret", {}, r"FileNotFoundError: .*me/secret.*if the repository is private, log in .*token"),
        ("me/gated", {}, r"PermissionError: me/gated is gated: request access at http://.*/me/gated.*token"),
        (
            "me/model",
            {"token": "hf_wrong"},
            r"PermissionError: http://.* denies access to me/model .*: Invalid credentials",
        ),
        ("no/such/folder", {}, "FileNotFoundError: there is no folder no/such/folder"),
        (
            "me/model",
            {"local_files_only": True},
            r"FileNotFoundError: a.txt of the repository me/model \(main\) has not been downloaded before, "
            "and local_files_only=True forbids a download; with access to the Hub, `hf download me/model` "
            "downloads it; there is no local folder me/model either$",
        ),
        (
            "me/model",
            {"local_files_only": True, "force_download": True},
            "ValueError: force_download=True contradicts local_files_only=True",
        ),
        ("me/model", {"revison": "main"}, "TypeError: unknown options: revison"),
    ],
)
def test_errors_are_one_line(client, repository, options, said, tmp_path):
    several = ["a.txt", "b.txt"]
    for call in (
        ("find_file", repository, "a.txt"),
        ("find_files", repository, several),
        ("find_folder", repository, several),
    ):
        message = client.error(*call, cache_dir=str(tmp_path), **options)
        assert re.match(said, message)
        assert "\n" not in message
        assert len(message) < 300


def test_offline(hub, connect, tmp_path):
    """What is there can be used; what is not is not asked for."""
    online = connect(hub.environment(tmp_path))
    (found,) = online.find("find_file", "me/model", "config.json")
    before = len(hub.requests)
    offline = connect(hub.environment(tmp_path, HF_HUB_OFFLINE="1"))
    assert offline.find("find_file", "me/model", "config.json") == [found]
    assert offline.find("find_file", "me/model", "first.json", "config.json") == [found]
    for call in (("find_file", "me/model", "model.bin"), ("find_gguf", "me/model", SHARDS[0])):
        message = offline.error(*call)
        assert message.startswith("FileNotFoundError: ")
        assert (
            "me/model (main) has not been downloaded before, and HF_HUB_OFFLINE forbids a download; "
            in message
        )
        assert message.endswith(
            "`hf download me/model` downloads it; there is no local folder me/model either"
        )
    assert len(hub.requests) == before


def test_what_a_commit_has_not_is_not_asked_for_again(hub, connect, tmp_path):
    """So all that was fetched serves where the Hub cannot be reached, found under whichever name."""
    names = ("model.safetensors", "model.bin", "other.gguf")
    options = {"revision": hub.repositories["me/model"].commit("main")}
    client = connect(hub.environment(tmp_path))
    (found,) = client.find("find_file", "me/model", *names, **options)
    before = len(hub.requests)
    assert client.find("find_file", "me/model", *names, **options) == [found]
    assert client.error("find_file", "me/model", names[0], **options).startswith(
        "FileNotFoundError: there is no file model.safetensors in the repository me/model ("
    )
    assert len(hub.requests) == before
    lost = connect(hub.environment(tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))
    assert lost.find("find_file", "me/model", *names, **options) == [found]


def test_a_hub_that_cannot_be_reached(hub, connect, tmp_path):
    """What has been fetched before serves; else it is said where nobody answers."""
    (found,) = connect(hub.environment(tmp_path)).find("find_file", "me/model", "config.json")
    lost = connect(hub.environment(tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))
    assert lost.find("find_file", "me/model", "config.json") == [found]
    message = lost.error("find_files", "me/model", ["a.txt", "b.txt"], cache_dir=str(tmp_path / "other"))
    assert re.fullmatch(
        r"ConnectionError: http://127.0.0.1:9 is unreachable \(.*refused.*\), and a.txt .*", message
    )


def test_a_hub_that_fails(hub, client, tmp_path):
    hub.broken = True
    try:
        message = client.error("find_files", "me/model", ["a.txt", "b.txt"], cache_dir=str(tmp_path))
    finally:
        hub.broken = False
    assert re.fullmatch(
        r"ConnectionError: http://.* failed with 503 Service Unavailable, and a.txt .*", message
    )


def test_a_header_without_end_is_not_read_for_ever():
    """A file may state a string of a terabyte, and be large enough for it."""
    start = struct.pack("<4sIQQQcIQ", b"GGUF", 3, 0, 1, 1, b"k", 8, 1 << 40)
    fetched = []

    def fetch(first: int, end: int) -> bytes:
        fetched.append((first, end))
        return (start if first == 0 else b"").ljust(end - first, b"x")

    with pytest.raises(GGUFError, match=r"x\.gguf: its header does not end within 268435456 bytes"):
        fetch_header(Path("x.gguf"), 1 << 42, fetch)
    assert fetched == [(0, 1 << 20)]


def test_progress_is_shown(hub, connect, tmp_path):
    client = connect(hub.environment(tmp_path, TQDM_POSITION="-1"))
    client.find("find_file", "me/flaky", "large.bin")
    shown = client.close()
    assert "large.bin: 100%" in shown


def test_paths(tmp_path):
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    assert find_gguf(file) == find_gguf(tmp_path, "a.gguf") == find_gguf(str(file)) == file
    assert find_file(tmp_path, "b.gguf", "a.gguf") == file
    assert find_files(str(tmp_path), ["a.gguf", "a.gguf"]) == [file, file]
    with pytest.raises(FileNotFoundError, match=r"is a folder: name a \.gguf file in it \(there: a\.gguf\)"):
        find_gguf(tmp_path)
    for arguments in [(tmp_path / "b.gguf",), (tmp_path, "b.gguf"), (file, "b.gguf")]:
        with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.gguf"):
            find_gguf(*arguments)
    with pytest.raises(FileNotFoundError, match=r"b\.gguf in .* \(there: a\.gguf\)"):
        find_file(tmp_path, "b.gguf")
    for place in (file, tmp_path):
        with pytest.raises(TypeError, match="revison"):
            find_gguf(place, "a.gguf", revison="main")


def test_a_hub_that_is_unreachable_is_asked_once(connect, hub, tmp_path):
    """What was never downloaded may be a misspelled path; the Hub's client would ask for half a minute."""
    (tmp_path / "models" / "llama").mkdir(parents=True)
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    asked.append(connection)
                    connection.close()

        thread = Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = connect(hub.environment(tmp_path / "cache", HF_ENDPOINT=address))
        place = "models/lama"
        for call in (
            ("find_file", place, "a", "b"),
            ("find_files", place, ["a", "b"]),
            ("find_folder", place, ["*"]),
        ):
            asked.clear()
            assert client.error(*call).startswith(f"ConnectionError: {address} is unreachable")
            assert len(asked) == 1
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_names_of_files_are_no_repositories(connect, hub, tmp_path):
    before = len(hub.requests)
    client = connect(hub.environment(tmp_path))
    for name in ("model.safetensors", "models/x.GGUF", "pytorch_model.bin"):
        assert client.error("find_file", name, "config.json").startswith(
            f"FileNotFoundError: there is no file {name}"
        )
    assert len(hub.requests) == before


def test_a_local_name_that_is_alike_is_shown(tmp_path, monkeypatch):
    (tmp_path / "models" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert alike("models/lama") == " (did you mean models/llama?)"
    assert alike("model") == " (did you mean models?)"
    assert alike("models/qwen") == alike("nothing/llama") == ""
