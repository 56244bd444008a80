"""Files that make no tokenizer are one clear error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import TokenType

from tests.support import VOCABS
from tests.tokenization.folders import FOLDERS, pieces, proto, write
from torchgguf.tokenization import AutoTokenizer, TokenizerError


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("originals")
    for name in ("gpt2", "gpt2-old", "llama"):
        FOLDERS[name][0](root / name)
    return root


def _changed(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        old = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        write(folder, file, {**old, **values})

    return change


def _written(file: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(data) and None


def _without(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files] and None


def _without_unknown() -> bytes:
    model = proto(pieces())
    model.pieces[model.trainer_spec.unk_id].type = TokenType.CONTROL
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpt2", _written("tokenizer.json", b"{}"), "tokenizer.json is invalid: "),
        ("gpt2", _written("tokenizer.json", b"\xff"), "tokenizer.json is not UTF-8: "),
        ("gpt2", _written("tokenizer_config.json", b"{"), "tokenizer_config.json is not JSON: "),
        ("gpt2", _written("tokenizer_config.json", b"[]"), "tokenizer_config.json must hold an object"),
        ("gpt2", _written("config.json", b"[" * 100_000), "config.json is not JSON: "),
        (
            "gpt2",
            _changed("tokenizer_config.json", chat_template=[{"name": "x"}]),
            "chat_template must be a string or a list",
        ),
        ("gpt2", _changed("tokenizer_config.json", model_max_length="9"), "must be of the type int, got '9'"),
        ("gpt2", _changed("tokenizer_config.json", added_tokens_decoder=7), "added_tokens_decoder must hold"),
        ("gpt2", _changed("tokenizer_config.json", added_tokens_decoder={"1": {"x": 1}}), "is not a token"),
        (
            "gpt2",
            _changed("tokenizer_config.json", added_tokens_decoder={"-1": {"content": "x"}}),
            "-1 is not an id",
        ),
        ("gpt2", _changed("tokenizer_config.json", pad_token={"lstrip": True}), "is not a token"),
        ("gpt2", _changed("tokenizer_config.json", pad_token=7), "7 is not a token"),
        (
            "gpt2",
            _changed("tokenizer_config.json", extra_special_tokens="<a>"),
            "must hold tokens, got '<a>'",
        ),
        ("gpt2", _changed("tokenizer_config.json", add_prefix_space="no"), "must be of the type bool"),
        (
            "gpt2",
            _changed(
                "tokenizer.json",
                decoder={"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
            ),
            "decoders like CTC are unsupported",
        ),
        ("gpt2-old", _without("merges.txt"), r"vocab\.json needs merges\.txt"),
        (
            "gpt2-old",
            _changed("tokenizer_config.json", tokenizer_class="BartTokenizer"),
            "'BartTokenizer'; known",
        ),
        ("gpt2-old", _changed("vocab.json", huge=1 << 31), "whose ids go up to 2147483648"),
        ("llama", _written("tokenizer.model", b"\xff" * 9), "tokenizer.model is not a SentencePiece model"),
        ("llama", _written("tokenizer.model", b""), "it has no pieces"),
        ("llama", _written("tokenizer.model", pieces(model_type="word")), "the types Unigram and BPE"),
        ("llama", _written("tokenizer.model", _without_unknown()), "no piece is the unknown one"),
        ("llama", _changed("tokenizer_config.json", add_bos_token="no"), "must be of the type bool"),
        (
            "llama",
            _changed("tokenizer_config.json", added_tokens_decoder={str(1 << 30): {"content": "x"}}),
            "others are declared up to 1073741824",
        ),
    ],
)
def test_files_that_make_no_tokenizer(
    name: str, change: Callable[[Path], None], message: str, originals: Path, tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(originals / name, folder)
    change(folder)
    with pytest.raises(TokenizerError, match=message) as caught:
        AutoTokenizer.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("stated", [-1, 1 << 20])
def test_a_role_that_no_token_has(name: str, stated: int, originals: Path, tmp_path: Path) -> None:
    shutil.copytree(originals / name, tmp_path / name)
    _changed("config.json", pad_token_id=stated)(tmp_path / name)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
    assert tokenizer.encode("Hello") == AutoTokenizer.from_pretrained(originals / name).encode("Hello")
    assert "tokenizer.ggml.padding_token_id" not in tokenizer.to_gguf()


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"tokenizer\.json, tokenizer\.model and vocab\.json are all missing$"
    ):
        AutoTokenizer.from_pretrained(tmp_path)
    shutil.copy(VOCABS / "ggml-vocab-gpt-2.gguf", tmp_path / "model.gguf")
    with pytest.raises(
        FileNotFoundError, match=r"name the file: .*/model\.gguf, or in Python gguf_file='model"
    ):
        AutoTokenizer.from_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")) == 50257
    with pytest.raises(TypeError, match="use_slow"):
        AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf", use_slow=True)
