"""`torchgguf metadata` shows what gguf-py reads, and what it has set gguf-py reads too."""

import json
import re
import shutil

import gguf
import pytest

from tests.container.test_editing_faults import edit_and_die
from tests.peers.hub import Repository, serving
from tests.support import ROOT, SMOLLM2
from torchgguf.container import edit_metadata

GOLDENS = ROOT / "tests" / "data" / "gguf_split"


@pytest.fixture
def path(tmp_path):
    return shutil.copy(GOLDENS / "model.gguf", tmp_path / "x.gguf")


def fields(path):
    reader = gguf.GGUFReader(path)
    return {
        key: ([kind.name.lower() for kind in field.types], field.contents())
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }


def test_all_of_it_for_programs(torchgguf):
    result = torchgguf("metadata", SMOLLM2, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {key: value for key, (_, value) in fields(SMOLLM2).items()}


def test_all_of_it_for_people(torchgguf, path):
    result = torchgguf("metadata", path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[2:] == [
        "general.architecture string llama",
        "general.name string tiny",
        "tokenizer.ggml.tokens [string] [a, b, ü]",
        "x.list [int32] [1, 2, 3]",
    ]


@pytest.mark.parametrize(
    "arguments, shown",
    [
        (["general.name"], "tiny\n"),
        (["general.name", "--json"], '"tiny"\n'),
        (["tokenizer.ggml.tokens"], '["a", "b", "ü"]\n'),
        (["tokenizer.ggml.tokens", "--json"], '["a", "b", "\\u00fc"]\n'),
    ],
)
def test_one_key(torchgguf, path, arguments, shown):
    result = torchgguf("metadata", path, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, shown, "")


@pytest.mark.parametrize(
    "arguments, changed",
    [
        (["--set", "general.name=a=b"], {"general.name": (["string"], "a=b")}),
        (["--set", "general.name=7"], {"general.name": (["string"], "7")}),
        (["--set", "x.list=[-4]"], {"x.list": (["array", "int32"], [-4])}),
        (["--set", "new=7", "--type", "uint8"], {"new": (["uint8"], 7)}),
        (["--set", "new=[7]", "--type", "[float32]"], {"new": (["array", "float32"], [7.0])}),
        (["--set", "new=yes", "--type", "string"], {"new": (["string"], "yes")}),
        (
            ["--set", "n=7", "--set", "f=1.5", "--set", "b=true", "--set", "s=some text", "--set", 't="9"'],
            {
                "n": (["uint32"], 7),
                "f": (["float32"], 1.5),
                "b": (["bool"], True),
                "s": (["string"], "some text"),
                "t": (["string"], "9"),
            },
        ),
        (
            [
                "--set",
                "general.version=1.0",
                "--set",
                "llama.rope.scaling.factor=4",
                "--set",
                'general.tags=["1"]',
            ],
            {
                "general.version": (["string"], "1.0"),
                "llama.rope.scaling.factor": (["float32"], 4.0),
                "general.tags": (["array", "string"], ["1"]),
            },
        ),
        (["--set", "general.version=1.0", "--type", "float32"], {"general.version": (["float32"], 1.0)}),
        (["--set", "new=@@x", "--remove", "general.name"], {"new": (["string"], "@x"), "general.name": None}),
    ],
)
def test_set_and_remove(torchgguf, path, arguments, changed):
    before = fields(path)
    result = torchgguf("metadata", path, *arguments, "--room", 0)
    assert (result.returncode, result.stdout) == (0, "")
    how, *new = result.stderr.splitlines()
    assert re.fullmatch(r".*x\.gguf: (metadata written in place|whole file rewritten)\.", how)
    types = {key: changed[key][0] for key in changed if key not in before}
    assert [line.replace("[", "array, ").replace("]", "") for line in new] == [
        f"{key} is new and has type {', '.join(type)}." for key, type in types.items()
    ]
    expected = {key: field for key, field in (before | changed).items() if field is not None}
    assert {key: field for key, field in fields(path).items() if key != "torchgguf.padding"} == expected


def test_a_template_from_a_file_and_back(torchgguf, path, tmp_path):
    text = "{% for m in messages %}\n  {{ m }} ü\n{% endfor %}\n"
    (tmp_path / "template.jinja").write_text(text, encoding="utf-8")
    setting = f"tokenizer.chat_template=@{tmp_path / 'template.jinja'}"
    assert "whole file rewritten" in torchgguf("metadata", path, "--set", setting).stderr
    assert fields(path)["tokenizer.chat_template"] == (["string"], text)
    assert torchgguf("metadata", path, "tokenizer.chat_template").stdout == text + "\n"
    assert "written in place" in torchgguf("metadata", path, "--set", "tokenizer.chat_template=short").stderr


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["general.nam"], 1, "there is no key 'general.nam'"),
        (["--set", "general.name"], 2, "'general.name' is not KEY=VALUE"),
        (["--set", "a=1", "--set", "a=2"], 2, "a is set twice"),
        (["--set", "a=1", "--set", "b=2", "--type", "int8"], 2, "--type"),
        (["--set", "a=1", "--type", "integer"], 2, "unknown type 'integer'; known: uint8,"),
        (["--set", "a=999", "--type", "uint8"], 2, "999 does not fit uint8"),
        (["--set", "x.list=1,2"], 2, "x.list must be of type [int32], got '1,2'"),
        (["--set", "x.list=7"], 2, "7 is not a list"),
        (["--set", "general.tags=chat"], 2, "general.tags must be of type [string], got 'chat'"),
        (["--set", "llama.logit_scale=much"], 2, "llama.logit_scale must be of type float32, got 'much'"),
        (["--set", "a=[]"], 2, "an empty list has no element type"),
        (["--set", "a=@missing.txt"], 1, "missing.txt: No such file"),
        (["--set", f"a=@{GOLDENS / 'model.gguf'}"], 1, "model.gguf is not a UTF-8 text"),
        (["--remove", "b"], 1, "there is no key 'b'"),
        (["--set", "general.architecture=x"], 1, "it states how to read"),
        (["--set", "a=1", "--remove", "a"], 2, "a must be either set or removed, not both"),
        (["--type", "int8"], 2, "--set or --remove"),
        (["general.name", "--set", "a=1"], 2, "do only one at a time"),
    ],
)
def test_what_is_refused(torchgguf, path, arguments, code, message):
    content = path.read_bytes()
    result = torchgguf("metadata", path, *arguments)
    assert result.returncode == code
    assert re.fullmatch(r"error: .*\n", result.stderr)
    assert message in result.stderr
    assert path.read_bytes() == content


def test_force(torchgguf, path):
    result = torchgguf("metadata", path, "--set", "general.architecture=x", "--force")
    assert result.returncode == 0
    assert fields(path)["general.architecture"] == (["string"], "x")


def test_a_part_of_a_split_model(torchgguf, tmp_path):
    for part in GOLDENS.glob("tensors-*"):
        shutil.copy(part, tmp_path)
    last = tmp_path / "tensors-00003-of-00003.gguf"
    result = torchgguf("metadata", last, "--set", "general.name=else")
    assert result.returncode == 0
    assert "tensors-00001-of-00003.gguf: " in result.stderr
    assert torchgguf("metadata", last, "general.name").stdout == "else\n"


def test_a_file_of_a_repository_is_shown_and_not_changed(torchgguf, path, tmp_path):
    with serving(model=Repository({"main": {"x.gguf": path.read_bytes()}})) as server:
        environment = server.environment(tmp_path / "cache")
        shown = torchgguf("metadata", "me/model:x.gguf", "general.name", env=environment)
        server.requests.clear()
        changed = torchgguf("metadata", "me/model:x.gguf", "--set", "general.name=else", env=environment)
        assert not server.requests
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "tiny\n", "")
    assert changed.returncode == 1
    assert re.fullmatch(r"error: me/model:x\.gguf .*`hf download me/model x\.gguf`\n", changed.stderr)


def test_a_change_that_was_not_finished_is_undone(torchgguf, path):
    edit_metadata(path, {"x.text": "old" * 1000})
    content = path.read_bytes()
    edit_and_die(path, {"x.text": "new" * 1000}, "pwrite", 4)
    result = torchgguf("info", path)
    assert result.returncode == 1
    assert "`torchgguf metadata` with the file's name restores it" in result.stderr
    result = torchgguf("metadata", path, "x.text")
    assert (result.returncode, result.stdout) == (0, "old" * 1000 + "\n")
    assert "was undone" in result.stderr
    assert path.read_bytes() == content
