"""What people write behind `from_pretrained` of a tokenizer: honoured, said, or refused in one line."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken

from tests.support import SMOLLM2, VOCABS
from tests.tokenization.folders import FOLDERS
from tests.tokenization.oracles import LlamaCpp, hard_texts, with_tiny_model
from tests.tokenization.test_vocabularies import vocabulary
from torchgguf.tokenization import AutoTokenizer, GPT2Tokenizer, Tokenizer, TokenizerError

LLAMA = VOCABS / "ggml-vocab-llama-spm.gguf"
TEXT = "Hello <a> wörld , it is<pad>  so ."


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with tokenizers: `gpt2`, `old` as it was once, and `whole` with one in a folder inside."""
    root = tmp_path_factory.mktemp("options")
    for name, kind in (
        ("gpt2", "gpt2"),
        ("old", "gpt2-old"),
        ("whole/tokenizer", "gpt2"),
        ("llama", "llama"),
    ):
        FOLDERS[kind][0](root / name)
    return root


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    "options",
    [
        {"use_fast": True, "trust_remote_code": False, "legacy": True},
        {"use_fast": None, "trust_remote_code": None, "legacy": None, "add_prefix_space": None},
        {"revision": "main", "token": None, "use_auth_token": None, "cache_dir": None, "subfolder": ""},
        {"resume_download": True, "proxies": None, "local_files_only": True, "force_download": False},
        {"tokenizer_type": None, "config": None, "code_revision": None, "verbose": False},
        {"config": SimpleNamespace(model_type="llama"), "add_prefix_space": False},
    ],
    ids=lambda options: " ".join(options),
)
@pytest.mark.parametrize("gguf", [True, False], ids=["gguf", "folder"])
def test_options_that_ask_for_nothing(root: Path, gguf: bool, options: dict[str, Any]) -> None:
    place = SMOLLM2 if gguf else root / "gpt2"
    expected = AutoTokenizer.from_pretrained(place)(TEXT)
    assert AutoTokenizer.from_pretrained(place, **options)(TEXT) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_fast": False}, "there is only one kind of tokenizer, with the ids of the slow ones"),
        ({"trust_remote_code": True}, "no code of a repository is ever run"),
    ],
)
def test_what_changes_nothing_is_said(root: Path, options: dict[str, Any], said: str) -> None:
    expected = AutoTokenizer.from_pretrained(root / "gpt2")(TEXT)
    with pytest.warns(UserWarning, match=said) as told:
        assert AutoTokenizer.from_pretrained(root / "gpt2", **options)(TEXT) == expected
    assert told[0].filename == __file__


def test_spaces_after_special_tokens_are_those_of_llama_cpp(root: Path) -> None:
    for place in (LLAMA, root / "llama"):
        with pytest.warns(
            UserWarning, match="legacy=False: a text after a special token begins with a space"
        ):
            assert AutoTokenizer.from_pretrained(place, legacy=False).encode("a") == (
                AutoTokenizer.from_pretrained(place).encode("a")
            )
    for place in (SMOLLM2, root / "gpt2"):
        AutoTokenizer.from_pretrained(place, legacy=False)


def test_a_leading_space(root: Path, tmp_path: Path) -> None:
    folder = root / "gpt2"
    theirs = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    assert AutoTokenizer.from_pretrained(folder, add_prefix_space=True)(TEXT) == dict(theirs(TEXT))

    ours = AutoTokenizer.from_pretrained(LLAMA, add_prefix_space=False)
    oracle = LlamaCpp(with_tiny_model(ours.to_gguf(), tmp_path / "tiny.gguf"))
    texts = [text for text in hard_texts(300, seed=61) if text.isascii()]
    assert ours(texts, add_special_tokens=False).input_ids == oracle.encode(texts)
    assert ours.encode("a") != AutoTokenizer.from_pretrained(LLAMA).encode("a")
    with pytest.raises(TokenizerError, match="kind 'bert' do not support add_prefix_space=False"):
        AutoTokenizer.from_pretrained(vocabulary("bert-bge"), add_prefix_space=False)


@pytest.mark.parametrize(
    "options",
    [
        {"pad_token": "<pad>", "eos_token": "<a>"},
        {"pad_token": AddedToken("<pad>", lstrip=True, rstrip=True), "extra_special_tokens": ["<a>"]},
        {"additional_special_tokens": ["<pad>", "<a>"]},
        {"pad_token": None, "bos_token": "<a>"},
        {"model_max_length": 5, "truncation_side": "left", "padding_side": "left"},
        {"split_special_tokens": True, "model_input_names": ["input_ids", "token_type_ids"]},
    ],
    ids=str,
)
def test_settings(root: Path, options: dict[str, Any]) -> None:
    makers = (AutoTokenizer, transformers.AutoTokenizer)
    ours, theirs = (maker.from_pretrained(root / "gpt2", **options) for maker in makers)
    for more in ({}, {"truncation": True}):
        assert ours(TEXT, **more) == dict(theirs(TEXT, **more))
    assert len(ours) == len(theirs)
    for role in ("bos", "eos", "unk", "pad"):
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
    assert (ours.padding_side, ours.model_max_length) == (theirs.padding_side, theirs.model_max_length)
    assert list(ours.model_input_names) == list(theirs.model_input_names)
    assert ours.name_or_path == str(theirs.name_or_path)


def test_no_token_for_a_role() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2, pad_token=None, unk_token=None)
    assert tokenizer.pad_token is None
    assert tokenizer.unk_token_id is None
    assert "tokenizer.ggml.padding_token_id" not in tokenizer.to_gguf()
    with pytest.raises(ValueError, match=r"no padding token: set tokenizer\.pad_token"):
        tokenizer(["a", "b b"], padding=True)


def test_places(root: Path) -> None:
    expected = AutoTokenizer.from_pretrained(root / "gpt2")
    found = AutoTokenizer.from_pretrained(root / "whole", subfolder="tokenizer")
    assert found(TEXT) == expected(TEXT)
    found = AutoTokenizer.from_pretrained(VOCABS.parent, subfolder=VOCABS.name, gguf_file=LLAMA.name)
    assert found.vocab_size == 32000
    assert GPT2Tokenizer.from_pretrained(root / "gpt2", use_fast=True)(TEXT) == expected(TEXT)
    assert AutoTokenizer.from_pretrained(root / "old", tokenizer_type="gpt2")(TEXT) == expected(TEXT)
    (root / "old" / "config.json").unlink()
    with pytest.raises(TokenizerError, match="do not state how texts are split"):
        AutoTokenizer.from_pretrained(root / "old")
    config = transformers.GPT2Config()
    assert AutoTokenizer.from_pretrained(root / "old", config=config)(TEXT) == expected(TEXT)


@pytest.mark.parametrize(
    ("place", "options", "error"),
    [
        ("gpt2", {"device_map": "auto"}, TypeError("has no option device_map=: it belongs to the model")),
        ("gpt2", {"torch_dtype": "auto"}, TypeError("has no option torch_dtype=: it belongs to the model")),
        ("gpt2", {"padding": True}, TypeError(r"no option padding=: pass it to the tokenizer")),
        ("gpt2", {"max_length": 5}, TypeError(r"as in tokenizer\(text, max_length=\.\.\.\)")),
        ("gpt2", {"do_lower_case": True}, TypeError("no option do_lower_case=: there are add_bos_token, ")),
        ("gpt2", {"code_revision": "x"}, ValueError("code_revision='x' is not supported")),
        ("gpt2", {"proxies": {"http": "x"}}, ValueError("proxies={'http': 'x'} is not supported")),
        ("gpt2", {"tokenizer_type": "bird"}, ValueError("tokenizer_type='bird' is unknown: omit it")),
        ("gpt2", {"subfolder": "sub"}, FileNotFoundError("there is no folder .*sub$")),
        (SMOLLM2, {"tokenizer_type": "gpt2"}, ValueError("a GGUF file states what it holds")),
        (SMOLLM2, {"subfolder": "sub"}, ValueError("subfolder= needs gguf_file=, which is missing")),
        (SMOLLM2, {"pad_tokn": "x"}, TypeError("has no option pad_tokn=")),
    ],
    ids=str,
)
def test_refusals(root: Path, place: Any, options: dict[str, Any], error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        AutoTokenizer.from_pretrained(root / place, **options)


def test_metadata_takes_the_same() -> None:
    metadata = Tokenizer.from_gguf(LLAMA).to_gguf()
    tokenizer = Tokenizer.from_gguf(dict(metadata), add_prefix_space=False, pad_token="</s>")
    assert tokenizer.encode("a") == AutoTokenizer.from_pretrained(LLAMA, add_prefix_space=False).encode("a")
    assert tokenizer.pad_token_id == 2
    assert "tokenizer.ggml.add_space_prefix" not in metadata
