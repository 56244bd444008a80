"""Model cards as people write them: nothing in them stops a conversion."""

import gguf
import pytest
import torch

from tests.bounds import bounded
from torchgguf.container import TensorSource
from torchgguf.models.core.provenance import Origin
from torchgguf.models.io.description import describe

# Front matter that the converter accepts: the same keys and values here.
ACCEPTED = [
    "language:\n- en\n- no",
    "tags: []",
    "tags: null",
    "tags: 3",
    "language: 3",
    "license: [mit, apache-2.0]",
    "license: ''",
    "base_model: a/Base-7B-Instruct-v1.2",
    "base_model: https://huggingface.co/a/Base-7B",
    "base_model: ''",
    "base_model: /",
    "base_model: 3",
    "base_model: {name: x}",
    "base_model: [a/b, c/d, {name: E, unknown: f}]",
    "base_model:",
    "datasets: [3, [a], b/c]",
    "datasets: d/e",
    "description: null",
    "name: null\nmodel_name: Second",
    "model_name: Third\nmodel_creator: someone\nmodel_type: llama",
    "pipeline_tag: text-generation\ntags: [a]",
    "pipeline_tag: 3",
    "tags: {a: b}",
    "language: {a: b}",
    "tags:\n- a\t\n-\tb",
    "- a list",
    "a text",
    "",
    "url: u\ndoi: d\nuuid: i\nrepo_url: r",
    "unknown: [1, {2: 3}]\nlibrary_name: transformers",
]
# Front matter at which it fails, and what the author means.
MEANT = {
    "language: [en, no]": {"languages": ["en", "no"]},
    "language: no": {"languages": ["no"]},
    "license: no": {"license": "no"},
    "tags: [1, two]": {"tags": ["1", "two"]},
    "tags: [true, 2024-01-01, 1_0]": {"tags": ["true", "2024-01-01", "1_0"]},
    "license: [mit, 2]": {"license": "mit,2"},
    "version: 1.0": {"version": "1.0"},
    "version: 1.10": {"version": "1.10"},
    "version: 2024-01-01": {"version": "2024-01-01"},
    "name: true": {"name": "true"},
    "name: 1:30": {"name": "1:30"},
    "author: [a, b]": {"author": "a, b"},
    "model_creator: [a, 5]": {"author": "a, 5"},
    "organization: 7": {"organization": "7"},
    "base_model: [{name: 3}]": {"base_model.count": 1, "base_model.0.name": "3"},
    "url: 3\ndoi: 10.1": {"source.url": "3", "source.doi": "10.1"},
    "license_name: 3": {"license.name": "3"},
}
# What nobody can use, and the fields that the warning names.
UNUSABLE = {
    "tags: [[a], b]": ({"tags": ["b"]}, "tags[0]"),
    "tags: [{a: 1}, null]": ({}, "tags[0], tags[1]"),
    "name: [a, b]\nmodel_name: Second": ({"name": "Second"}, "name"),
    "description: [a]\nlicense: mit": ({"license": "mit"}, "description"),
    "license_link: {a: b}": ({}, "license_link"),
    "author: [a, [b]]": ({}, "author"),
    "base_model: [{name: [1]}]": ({"base_model.count": 1}, "base_model[0]"),
    "license: !!binary aGFsbG8=": ({}, "license"),
    "version: !!set {a}": ({}, "version"),
    "tags: 3\nlanguage: 2024-01-01": ({}, "tags, language"),
}


def described(folder):
    tensors = {"a.weight": TensorSource.of(torch.zeros(2, 3))}
    found = describe("llama", Origin(folder, folder.name), tensors)
    return {key: value for key, value in found.items() if key != "general.architecture"}


def converted(folder):
    """What gguf's own reader and writer make of a folder, as llama.cpp's converter uses them."""
    writer = gguf.GGUFWriter(None, "llama")
    about = gguf.Metadata.load(model_path=folder, total_params=6)
    about.size_label = about.size_label or gguf.size_label(6, 6, 0, 0)
    writer.add_type(gguf.GGUFType.MODEL)
    about.set_gguf_meta_model(writer)
    for value in writer.kv_data[0].values():
        writer._pack_val(value.value, value.type, True, value.sub_type)
    return {key: value.value for key, value in writer.kv_data[0].items() if key != "general.architecture"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Good-1B-chat").mkdir()
    return tmp_path / "Good-1B-chat"


def put(folder, text, encoding="utf-8"):
    (folder / "README.md").write_bytes(f"---\n{text}\n---\n# Title\n".encode(encoding))


@pytest.mark.parametrize("text", ACCEPTED)
def test_as_the_converter_reads_it(folder, text):
    put(folder, text)
    assert described(folder) == converted(folder)


@pytest.mark.parametrize("text", MEANT)
@pytest.mark.parametrize("style", ["plain", "crlf", "bom"])
def test_values_stay_as_their_author_wrote_them(folder, text, style, caplog):
    put(
        folder,
        text.replace("\n", "\r\n") if style == "crlf" else text,
        "utf-8-sig" if style == "bom" else "utf-8",
    )
    plain = described(folder)
    (folder / "README.md").unlink()
    expected = described(folder) | {f"general.{key}": value for key, value in MEANT[text].items()}
    assert plain == expected
    assert not caplog.records


@pytest.mark.parametrize("text", UNUSABLE)
def test_what_nobody_can_use_is_left_out_with_one_warning(folder, text, caplog):
    usable, named = UNUSABLE[text]
    put(folder, text)
    found = described(folder)
    (folder / "README.md").unlink()
    assert found == described(folder) | {f"general.{key}": value for key, value in usable.items()}
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith(str(folder / "README.md")) and warning.endswith(f": {named}")


@pytest.mark.parametrize(
    "text",
    [
        *("name: [", "name: x: y", "? {a: b}\n: c", "[" * 2000),
        *("name: !!python/object:os.system x", "\0", 'name: "\\ud800"'),
    ],
)
def test_a_broken_card_is_ignored_with_a_warning(folder, text, caplog):
    put(folder, text)
    found = described(folder)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert str(folder / "README.md") in warning and "\n" not in warning
    (folder / "README.md").unlink()
    assert found == described(folder)
    assert found["general.name"] == "Good 1B Chat"


@pytest.mark.parametrize(
    "card", [b"", b"\xff", b"# Title", b"---\n", b"---\nlicense: mit", "Ä---\n".encode("latin-1")]
)
def test_a_card_without_fields(folder, card):
    (folder / "README.md").write_bytes(card)
    mit = {"general.license": "mit"} if b"mit" in card else {}
    found = described(folder)
    (folder / "README.md").unlink()
    assert found == described(folder) | mit


def test_a_text_in_another_encoding_after_the_fields(folder):
    put(folder, "license: mit\n---\nÄÖÜ", "latin-1")
    assert described(folder)["general.license"] == "mit"


@pytest.mark.parametrize(
    "fields",
    ["a: [" + "[]," * 340_000 + "]", "a: " + "x" * (2 << 20), "tags: [" + "[1]," * 40_000 + "]"],
    ids=["many", "long", "many of the wrong kind"],
)
def test_a_card_made_to_cost_time_is_ignored_soon(folder, fields, caplog):
    put(folder, "license: mit")
    assert described(folder)["general.license"] == "mit"
    put(folder, fields)
    with bounded(2 << 20):
        found = described(folder)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert str(folder / "README.md") in warning and len(warning) < 1500
    (folder / "README.md").unlink()
    assert found == described(folder)


def test_a_card_with_many_benchmarks(folder):
    results = "\n".join(f"  - {{type: x, name: MTEB {i}, value: {i}.5}}" for i in range(6000))
    put(folder, f"license: mit\nmodel-index:\n- name: x\n  results:\n{results}")
    with bounded(2 << 20):
        assert described(folder)["general.license"] == "mit"


def test_settings_made_to_cost_time_are_ignored_soon(folder):
    found = described(folder)
    (folder / "generation_config.json").write_bytes(b'{"a": [' + b"[]," * 4_000_000 + b"0]}")
    with bounded(12 << 20):
        assert described(folder) == found


@pytest.mark.parametrize("number", ["1e300", "NaN", "-Infinity", "9" * 400])
def test_a_number_that_the_type_does_not_have_is_left_out(folder, number, caplog):
    (folder / "generation_config.json").write_text(f'{{"temperature": {number}, "top_p": 0.5}}')
    found = described(folder)
    assert found["general.sampling.top_p"] == 0.5 and "general.sampling.temp" not in found
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "generation_config.json: general.sampling.temp is left out" in warning and len(warning) < 600
