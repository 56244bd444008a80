"""Addresses that people paste from the Hub name the repository, the revision and the file, everywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conversion.folders import describe, publish
from tests.peers.hub import Repository, serving
from torchgguf.conversion import convert_to_gguf
from torchgguf.hub import names_gguf_file, parse_url

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://huggingface.co/me/model/resolve/main/x.gguf", ("me/model", "x.gguf", None)),
        ("https://huggingface.co/me/model/resolve/main/x.gguf?download=true", ("me/model", "x.gguf", None)),
        ("https://huggingface.co/me/model/blob/main/Q8/x-of-2.gguf", ("me/model", "Q8/x-of-2.gguf", None)),
        ("https://hf.co/me/model/blob/dev/x.gguf#details", ("me/model", "x.gguf", "dev")),
        ("http://www.huggingface.co/me/model/raw/main/x.gguf", ("me/model", "x.gguf", None)),
        ("HTTPS://HuggingFace.co/me/model/resolve/main/x.gguf", ("me/model", "x.gguf", None)),
        ("huggingface.co/me/model/blob/main/x.gguf", ("me/model", "x.gguf", None)),
        (f"https://huggingface.co/me/m.o-d_el/resolve/{COMMIT}/x.gguf", ("me/m.o-d_el", "x.gguf", COMMIT)),
        ("https://huggingface.co/me/model/blob/refs%2Fpr%2F3/x.gguf", ("me/model", "x.gguf", "refs/pr/3")),
        ("https://huggingface.co/me/model/blob/refs/pr/3/x.gguf", ("me/model", "x.gguf", "refs/pr/3")),
        ("https://huggingface.co/me/model/resolve/main/x%5B1%5D%20.gguf", ("me/model", "x[1] .gguf", None)),
        ("https://huggingface.co/gpt2/resolve/main/x.gguf", ("gpt2", "x.gguf", None)),
        ("https://huggingface.co/me/model", ("me/model", None, None)),
        ("https://huggingface.co/me/model/", ("me/model", None, None)),
        ("https://huggingface.co/me/model/tree/main", ("me/model", None, None)),
        ("https://huggingface.co/me/model/tree/dev", ("me/model", None, "dev")),
        (Path("https://huggingface.co/me/model/blob/dev/x.gguf"), ("me/model", "x.gguf", "dev")),
        ("https://mirror.example/hub/me/model/resolve/main/x.gguf", ("me/model", "x.gguf", None)),
        ("me/model", None),
        ("me/model:x.gguf", None),
        ("/models/huggingface.co/x.gguf", None),
        ("model.gguf", None),
    ],
)  # fmt: skip
def test_what_is_named(monkeypatch, text, expected):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert parse_url(text) == expected
    if expected is not None:
        assert names_gguf_file(text) is (expected[1] is not None)
        assert parse_url(parse_url(text).place) in (None, (expected[0], None, expected[2]))


@pytest.mark.parametrize(
    "text, message",
    [
        ("https://example.org/me/model/resolve/main/x.gguf", "is not on the Hugging Face Hub: download it"),
        ("https://huggingface.co/datasets/me/data/resolve/main/x.gguf", "is not the address of a model"),
        ("https://huggingface.co/spaces/me/app", "is not the address of a model"),
        ("https://huggingface.co/", "is not the address of a model"),
        ("https://huggingface.co/me/model/discussions/3", "is not the address of a model"),
        ("https://huggingface.co/me/model/tree/main/Q8", "is a folder on the Hub: name a file in it"),
        ("https://huggingface.co/me/model/blob/main/model.safetensors", "name its repository, me/model"),
    ],
)
def test_what_is_refused(text, message):
    for place in (text, Path(text)):  # a Path drops a slash, which the message shows all the same
        with pytest.raises(ValueError, match=message) as caught:
            names_gguf_file(place)
        assert text.rstrip("/") in str(caught.value)


PROGRAM = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner
from torchgguf import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline
from torchgguf.cli import app
from torchgguf.container import open_gguf
from torchgguf.hub import find_file, find_files, find_folder, find_gguf, open_remote_gguf

hub, part = sys.argv[1:]
new = f"{hub}/me/llama/resolve/main/q/tiny.gguf?download=true"
old = f"{hub}/me/llama/blob/old/q/tiny.gguf"
page = f"{hub}/me/llama/tree/old"
shard = f"{hub}/me/llama/blob/main/{part}"
said = {"loaded": [], "errors": [], "commands": []}
for place in (new, old, page):
    config, tokenizer = AutoConfig.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    said["loaded"].append([config.hidden_size, tokenizer.encode("a")])
    answer = pipeline("text-generation", place, device="cpu")("a", max_new_tokens=2, do_sample=False)
    said["loaded"][-1].append(answer[0]["generated_text"])
said["names"] = [open_gguf(find_gguf(place)).metadata["general.name"] for place in (new, old, shard)]
said["header"] = open_remote_gguf(page, "q/tiny.gguf").metadata["general.name"]
found = [find_file(page, "config.json"), *find_files(page, ["config.json", "q/tiny.gguf"])]
said["files"] = [path.name for path in (*found, *find_folder(page, ["*.json"]).glob("config.*"))]
other = {"revision": "other"}
for place, options in ((old, other), (page, other), (new, {"gguf_file": "x"})):
    try:
        AutoModelForCausalLM.from_pretrained(place, **options)
    except ValueError as error:
        said["errors"].append(str(error))
for command in (
    ["info", old],
    ["metadata", new],
    ["run", old, "a", "-n", "1", "--no-stats"],
    ["quantize", new, "x.gguf", "Q8_0"],
    ["split", old, "y", "--max-tensors", "9"],
    ["merge", shard, "z.gguf"],
    ["convert", new, "folder"],
    ["metadata", new, "--set", "a=b"],
    ["info", "https://example.org/x.gguf"],
):
    done = CliRunner().invoke(app, command)
    said["commands"].append([done.exit_code, str(done.exception) if done.exception else done.output])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What one process saw whose Hub is on loopback, and the address of that."""
    from torchgguf.container import edit_metadata, split_gguf

    folder = tmp_path_factory.mktemp("urls")
    hf = publish("llama", folder / "hf")
    describe(hf)
    tiny, old = folder / "tiny.gguf", folder / "old.gguf"
    convert_to_gguf(hf, tiny)
    old.write_bytes(tiny.read_bytes())
    edit_metadata(tiny, {"general.name": "new"})
    edit_metadata(old, {"general.name": "of before"})
    parts = split_gguf(tiny, folder / "part", max_tensors=20)
    files = {path.name: path.read_bytes() for path in Path(hf).iterdir() if path.is_file()}
    main = {"q/tiny.gguf": tiny.read_bytes(), **{part.name: part.read_bytes() for part in parts}}
    with serving(
        llama=Repository({"main": main, "old": {**files, "q/tiny.gguf": old.read_bytes()}})
    ) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.address, parts[1].name],
            env=server.environment(folder / "cache"),
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), server.address


def test_loading(said):
    answers, _ = said
    of_new, of_old, of_page = answers["loaded"]  # two GGUF files and a checkpoint
    assert of_new == of_old
    assert of_new[:2] == of_page[:2]
    assert answers["names"] == ["new", "of before", "new"]
    assert answers["header"] == "of before"
    assert answers["files"] == ["config.json", "config.json", "tiny.gguf", "config.json"]


def test_contradictions(said):
    answers, hub = said
    assert answers["errors"] == [
        "revision='other' contradicts the revision in https://huggingface.co/me/llama/tree/old",
        f"revision='other' contradicts the revision in {hub}/me/llama/tree/old",
        f"{hub}/me/llama/resolve/main/q/tiny.gguf?download=true is a file on the Hub: "
        "name its repository, me/llama",
    ]


def test_commands(said):
    answers, _ = said
    *worked, changed, elsewhere = answers["commands"]
    assert [code for code, _ in worked] == [0] * 7, worked
    assert "of before" in worked[0][1]
    assert "new" in worked[1][1]
    assert changed[0] == elsewhere[0] == 1
    assert "download it before changing it, with `hf download me/llama q/tiny.gguf`" in changed[1]
    assert "https://example.org/x.gguf is not on the Hugging Face Hub" in elsewhere[1]
