"""`torchgguf info REPO:FILE` tells what it tells of the file itself, and fetches hardly more than says it."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.peers.hub import Client, HubServer, Repository, serving
from tests.support import SMOLLM2

ENDLESS = (
    struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IQ", 8, 1 << 40)
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    """A model in three files."""
    path = tmp_path_factory.mktemp("split") / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=1)
    writer.add_string("general.name", "in parts")
    for name in "abc":
        writer.add_tensor(name, np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def hub(shards) -> Iterator[HubServer]:
    model = {"smol.gguf": SMOLLM2.read_bytes(), "text.gguf": b"This is no model.\n", "empty.gguf": b""}
    model["cut.gguf"] = model["smol.gguf"][:100_000]
    model["endless.gguf"] = ENDLESS + bytes(5 << 20)
    split = {f"parts/{path.name}": path.read_bytes() for path in shards}
    with serving(
        model=Repository({"main": model, "empty-branch": {}}),
        split=Repository({"main": split, "incomplete": dict(list(split.items())[:2])}),
        flaky=Repository(
            {"main": {"smol.gguf": model["smol.gguf"]}}, drops={"smol.gguf": [300_000, 700_000]}
        ),
        silent=Repository({"main": {"smol.gguf": model["smol.gguf"]}}, drops={"smol.gguf": [1, 1]}),
        simple=Repository({"main": {"smol.gguf": model["smol.gguf"]}}, ranges=False),
    ) as server:
        yield server


@pytest.fixture
def environment(hub, tmp_path) -> dict[str, str]:
    hub.requests.clear()
    return hub.environment(tmp_path)


def document(result) -> dict:
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_a_large_file(torchgguf, hub, environment):
    remote = document(torchgguf("info", "me/model:smol.gguf", "--json", env=environment))
    local = document(torchgguf("info", SMOLLM2, "--json"))
    assert remote.pop("files") == ["me/model:smol.gguf"]
    assert local.pop("files") == [str(SMOLLM2)]
    assert remote == local
    header = gguf.GGUFReader(SMOLLM2).data_offset
    assert hub.sent < 2 * header + (1 << 20)
    assert hub.sent < SMOLLM2.stat().st_size / 20
    asked = [request.headers["range"] for request in hub.requests if request.method == "GET"]
    assert asked[0] == "bytes=0-1048575"
    assert len(asked) <= 4
    starts, ends = zip(
        *(map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", each).groups()) for each in asked), strict=True
    )
    assert starts[1:] == tuple(end + 1 for end in ends[:-1])  # nothing is asked for twice


def test_tables_tell_the_size_of_the_file_itself(torchgguf, environment):
    result = torchgguf("info", "me/model:smol.gguf", env=environment)
    assert f"{SMOLLM2.stat().st_size:,} bytes in 1 file" in result.stdout
    assert torchgguf("info", SMOLLM2).stdout == result.stdout


def test_a_server_that_knows_no_ranges(torchgguf, environment):
    remote = document(torchgguf("info", "me/simple:smol.gguf", "--json", env=environment))
    assert remote["metadata"]["general.architecture"] == "llama"


def test_a_connection_that_breaks_off_goes_on_where_it_was(torchgguf, hub, environment):
    remote = document(torchgguf("info", "me/flaky:smol.gguf", "--json", env=environment))
    assert remote["metadata"]["general.architecture"] == "llama"
    asked = [request.headers["range"] for request in hub.requests if request.method == "GET"]
    assert asked[:3] == [f"bytes={start}-1048575" for start in (0, 300_000, 700_000)]


def test_a_server_that_sends_nothing(torchgguf, hub, environment):
    result = torchgguf("info", "me/silent:smol.gguf", env=environment)
    assert result.returncode == 1
    said = f"error: {hub.address} sent fewer bytes of smol.gguf in me/silent than it has\n"
    assert result.stderr == said


def test_a_split_model(torchgguf, shards, environment):
    name = f"me/split:parts/{shards[1].name}"
    remote = document(torchgguf("info", name, "--json", env=environment))
    local = document(torchgguf("info", shards[1], "--json"))
    assert remote.pop("files") == [f"me/split:parts/{path.name}" for path in shards]
    local.pop("files")
    assert remote == local
    result = torchgguf("info", name, "--revision", "incomplete", env=environment)
    assert result.returncode == 1
    assert re.fullmatch(rf"error: {name}: shard 3 of 3 is missing: .*\n", result.stderr)


def test_offline_it_is_the_file_fetched_before(torchgguf, hub, environment):
    client = Client(environment)
    (found,) = client.find("find_gguf", "me/model", "smol.gguf")
    client.close()
    hub.requests.clear()
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    result = document(torchgguf("info", "me/model:smol.gguf", "--json", env=offline))
    assert result["files"] == [str(found)]
    missing = torchgguf("info", "me/model:cut.gguf", env=offline)
    assert re.fullmatch(
        "error: .*cut.gguf.* has not been downloaded before.*HF_HUB_OFFLINE.*\n", missing.stderr
    )
    assert not hub.requests


@pytest.mark.parametrize(
    "file, said",
    [
        (
            "me/model:lost.gguf",
            r"there is no file lost.gguf in the repository me/model \(there: .*smol.gguf.*\)",
        ),
        ("me/lost:a.gguf", r"there is no folder me/lost, and no such repository at http.*"),
        ("me/model:text.gguf", "me/model:text.gguf: is not a GGUF file.*"),
        ("me/model:empty.gguf", "me/model:empty.gguf: is empty"),
        ("me/model:cut.gguf", "me/model:cut.gguf: ends too early.*"),
        ("me/model:endless.gguf", "me/model:endless.gguf: ends too early.*"),
    ],
)
def test_errors_are_one_line(torchgguf, environment, file, said):
    result = torchgguf("info", file, env=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"error: {said}\n", result.stderr)


def test_only_repositories_have_revisions(torchgguf, environment):
    result = torchgguf("info", SMOLLM2, "--revision", "main", env=environment)
    assert result.returncode == 2
    assert "--revision" in result.stderr
    result = torchgguf("info", "me/model:smol.gguf", "--revision", "lost", env=environment)
    assert result.stderr == "error: the repository me/model has no revision lost\n"
