"""GPT-2's tokenizer by its own name, as in transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.support import VOCABS
from tests.tokenization.folders import FOLDERS, byte_level
from tests.tokenization.oracles import hard_texts
from torchgguf import AutoTokenizer
from torchgguf.tokenization import GPT2Tokenizer, GPT2TokenizerFast, TokenizerError

TEXTS = hard_texts(1000, ["<|endoftext|>", "<pad>"], seed=31)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("gpt2")
    vocab, merges = byte_level("gpt-2").model.save(str(folder))
    return vocab, merges


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_prefix_space": True},
        {"pad_token": "<pad>"},
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        {"add_bos_token": True, "padding_side": "left", "model_max_length": 12},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "GPT2TokenizerFast"])
def test_equals_transformers(kind: str, options: dict[str, Any], files: tuple[str, str]) -> None:
    ours: Any = {"GPT2Tokenizer": GPT2Tokenizer, "GPT2TokenizerFast": GPT2TokenizerFast}[kind](
        *files, **options
    )
    theirs = getattr(transformers, kind)(*files, **options)
    assert ours(TEXTS).input_ids == theirs(TEXTS)["input_ids"]
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
    limits = {"truncation": True, "max_length": 12}
    if "pad_token" in options or "eos_token" not in options:
        ours.pad_token = theirs.pad_token = options.get("pad_token", "<|endoftext|>")
        limits["padding"] = True
    assert ours(TEXTS, **limits) == dict(theirs(TEXTS, **limits))
    for ids in ours(TEXTS).input_ids:
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


def test_vocabulary_as_a_dict(files: tuple[str, str]) -> None:
    vocab = json.loads(Path(files[0]).read_text())
    merges = [line for line in Path(files[1]).read_text().splitlines() if not line.startswith("#version")]
    expected = GPT2Tokenizer(*files)(TEXTS).input_ids
    assert GPT2Tokenizer(vocab, merges)(TEXTS).input_ids == expected
    assert GPT2Tokenizer(vocab, [tuple(merge.split()) for merge in merges])(TEXTS).input_ids == expected
    with pytest.raises(TypeError, match="both be paths, or neither"):
        GPT2Tokenizer(vocab, files[1])


def test_what_is_made_of_broken_characters(files: tuple[str, str]) -> None:
    broken = GPT2Tokenizer(*files).encode("é")[:1]
    assert GPT2Tokenizer(*files).decode(broken) == b"\xc3".decode(errors="replace")
    assert GPT2Tokenizer(*files, errors="ignore").decode(broken) == ""
    with pytest.raises(UnicodeDecodeError):
        GPT2Tokenizer(*files, errors="strict").decode(broken)


@pytest.mark.parametrize("name", ["gpt2", "gpt2-old"])
@pytest.mark.parametrize("options", [{}, {"add_prefix_space": True}, {"eos_token": "<end>"}], ids=str)
def test_from_a_folder(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    FOLDERS[name][0](tmp_path / name)
    for one in (GPT2Tokenizer, AutoTokenizer):
        ours = one.from_pretrained(tmp_path / name, **options)
        theirs = getattr(transformers, one.__name__).from_pretrained(tmp_path / name, **options)
        assert ours(TEXTS).input_ids == theirs(TEXTS)["input_ids"]
        assert ours.special_tokens_map == theirs.special_tokens_map


def test_from_a_gguf_file() -> None:
    ours = GPT2TokenizerFast.from_pretrained(VOCABS, gguf_file="ggml-vocab-gpt-2.gguf")
    theirs = transformers.AutoTokenizer.from_pretrained(VOCABS, gguf_file="ggml-vocab-gpt-2.gguf")
    assert isinstance(ours, GPT2Tokenizer)
    assert ours(TEXTS).input_ids == theirs(TEXTS)["input_ids"]


def test_files_that_are_no_vocabulary(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"vocab\.json and merges\.txt are invalid for a byte-level BPE"):
        GPT2Tokenizer(files[1], files[0])
    with pytest.raises(TokenizerError, match=r"are invalid for a byte-level BPE: .*out of vocabulary"):
        GPT2Tokenizer({"a": 0}, ["a b"])
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.json"):
        GPT2Tokenizer(tmp_path / "nothing.json", files[1])
