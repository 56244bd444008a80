"""A GGUF file is one whatever its name: its first bytes decide, for each command and each class."""

import shutil
from pathlib import Path

import pytest

from tests.conversion.folders import describe, publish
from torchgguf import AutoConfig, AutoModelForCausalLM, AutoTokenizer, open_gguf, pipeline
from torchgguf.container.layout import UNFINISHED_MAGIC
from torchgguf.container.reading.recognition import has_gguf_magic, is_gguf_file
from torchgguf.conversion import convert_to_gguf

NAMES = ["sha256-0123abcd", "TINY.GGUF", "model.gguf.bak", "model-q8_0.bin", "weights.json", "tiny.v1.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder that is called like a file, and beside it the file under many names."""
    folder = tmp_path_factory.mktemp("names") / "folder.gguf"
    describe(publish("llama", folder))
    path = folder.with_name("tiny.gguf")
    convert_to_gguf(folder, path)
    for name in NAMES:
        shutil.copy(path, folder.with_name(name))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_loading(folder: Path, name: str) -> None:
    path, usual = folder.with_name(name), folder.with_name("tiny.gguf")
    assert AutoConfig.from_pretrained(path).to_dict() == AutoConfig.from_pretrained(usual).to_dict()
    text = "a quick brown fox"
    assert AutoTokenizer.from_pretrained(path).encode(text) == AutoTokenizer.from_pretrained(usual).encode(
        text
    )
    ours, expected = (
        pipeline("text-generation", str(place), device="cpu")(text, max_new_tokens=4, do_sample=False)
        for place in (path, usual)
    )
    assert ours == expected


@pytest.mark.parametrize("name", ["sha256-0123abcd", "weights.json"])
def test_commands(torchgguf, folder: Path, name: str, tmp_path: Path) -> None:
    path, text = folder.with_name(name), tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    for arguments in (
        ("run", path, "hello", "-n", 2),
        ("chat", path, "-n", 2),
        ("info", path),
        ("metadata", path),
        ("split", path, tmp_path / "parts", "--max-tensors", 9),
        ("quantize", path, tmp_path / name, "Q8_0", "--verify"),
        ("convert", path, tmp_path / "folder"),
        ("imatrix", path, "--text", text, "-o", tmp_path / "im.gguf", "-c", 16, "--chunks", 2),
    ):
        result = torchgguf(*arguments, input="hi\n" if arguments[0] == "chat" else "")
        assert result.returncode == 0, (arguments[0], result.stderr)
        if arguments[0] == "quantize":
            assert "predictions for" in result.stdout
    assert open_gguf(tmp_path / name).tensors
    assert AutoConfig.from_pretrained(tmp_path / "folder").model_type == "llama"


def test_a_folder_called_gguf(torchgguf, folder: Path, tmp_path: Path) -> None:
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "llama"
    tokenizer, expected = (
        AutoTokenizer.from_pretrained(place) for place in (folder, folder.with_name("tiny.gguf"))
    )
    assert tokenizer.encode("a quick fox") == expected.encode("a quick fox")
    (tmp_path / "out.gguf").mkdir()
    for source, pattern in ((folder.with_name("tiny.gguf"), "config.json"), (folder, "*.gguf")):
        result = torchgguf("convert", source, tmp_path / "out.gguf")
        assert result.returncode == 0, result.stderr
        assert list((tmp_path / "out.gguf").glob(pattern))
    (tmp_path / "empty" / "in.gguf").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):  # not "name a .gguf file in it"
        AutoConfig.from_pretrained(tmp_path / "empty")


def test_what_decides(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "unfinished").write_bytes(UNFINISHED_MAGIC + bytes(8))
    (tmp_path / "short").write_bytes(b"GGU")
    (tmp_path / "other.gguf").write_bytes(b"{}")
    (tmp_path / "other.bin").write_bytes(b"FUGG")
    assert has_gguf_magic(tmp_path / "unfinished")
    assert not any(has_gguf_magic(tmp_path / name) for name in ("short", "other.gguf", "other.bin"))
    # Opening `other.gguf` and `missing.gguf` raises the right error.
    for name, expected in {
        "unfinished": True,
        "short": False,
        "other.gguf": True,
        "other.bin": False,
        "missing.gguf": True,
        "missing": False,
    }.items():
        assert is_gguf_file(tmp_path / name) is expected
    assert not is_gguf_file(folder)
    assert not is_gguf_file("owner/repository")
