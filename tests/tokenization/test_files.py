"""Tokenizers out of Hugging Face's files: transformers', sentencepiece's and llama.cpp's ids."""

import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers

from tests.tokenization.converter import converted, differences
from tests.tokenization.folders import FOLDERS, pieces
from tests.tokenization.oracles import LlamaCpp, as_bert, hard_texts, with_tiny_model, without_marks
from torchgguf.container import Metadata
from torchgguf.tokenization import AutoTokenizer

# Of tokenizer.model without tokenizer.json transformers makes another thing than SentencePiece and llama.cpp:
# no space before the text that follows a special token, or before any; and one white space that T5's does not
# know for white space.
ONLY_PIECES = {"llama", "mistral", "mt5", "t5"}
UNIGRAM = {"xlm-roberta", "mt5", "mt5-json", "t5"}


def _plain(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cf") for character in text)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    for name, (make, _) in FOLDERS.items():
        make(root / name)
    return {name: root / name for name in FOLDERS}


@pytest.fixture(scope="module")
def by_converter(folders: dict[str, Path]) -> dict[Path, Metadata]:
    return converted({folders[name]: split for name, (_, split) in FOLDERS.items()})


@pytest.mark.parametrize("name", sorted(FOLDERS.keys() - ONLY_PIECES))
def test_ids_of_transformers(name: str, folders: dict[str, Path]) -> None:
    ours = AutoTokenizer.from_pretrained(folders[name])
    theirs = transformers.AutoTokenizer.from_pretrained(folders[name])
    texts = hard_texts(1500, list(ours.get_added_vocab()), seed=11)
    mine, expected = (one(texts, return_offsets_mapping=True) for one in (ours, theirs))
    assert mine.input_ids == expected["input_ids"]
    assert mine.offset_mapping == expected["offset_mapping"]
    assert dict(ours(texts[:5])) == dict(theirs(texts[:5]))
    options: dict[str, Any] = {
        "split_special_tokens": True,
        "return_token_type_ids": True,
        "return_special_tokens_mask": True,
    }
    assert ours(texts, **options) == dict(theirs(texts, **options))
    assert ours(texts[:50], texts[50:100], **options) == dict(theirs(texts[:50], texts[50:100], **options))
    assert (len(ours), ours.vocab_size, ours.get_vocab()) == (
        len(theirs),
        theirs.vocab_size,
        theirs.get_vocab(),
    )
    assert (ours.padding_side, ours.truncation_side) == (theirs.padding_side, theirs.truncation_side)
    assert ours.model_max_length == theirs.model_max_length
    assert ours.num_special_tokens_to_add() == theirs.num_special_tokens_to_add()
    chat = [{"role": "user", "content": "Hi"}]
    if theirs.chat_template:
        assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(
            chat, tokenize=False
        )
    for text, ids in zip(texts, mine.input_ids, strict=True):
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip), text


@pytest.mark.parametrize("name", sorted(FOLDERS.keys() - ONLY_PIECES - {"phi3"}))
def test_special_tokens_of_transformers(name: str, folders: dict[str, Path]) -> None:
    ours = AutoTokenizer.from_pretrained(folders[name])
    theirs = transformers.AutoTokenizer.from_pretrained(folders[name])
    assert ours.special_tokens_map == theirs.special_tokens_map


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_ids_of_sentencepiece(name: str, folders: dict[str, Path]) -> None:
    ours = AutoTokenizer.from_pretrained(folders[name])
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folders[name] / "tokenizer.model"))
    texts = [text for text in hard_texts(1500, seed=12) if "<s>" not in text and "▁" not in text]
    assert ours(texts, add_special_tokens=False).input_ids == theirs.encode(texts)
    assert ours.encode("a") == [1, *theirs.encode("a")]


@pytest.mark.parametrize("name", ["mt5", "t5"])
def test_ids_of_unigram_pieces(name: str, folders: dict[str, Path]) -> None:
    ours = AutoTokenizer.from_pretrained(folders[name])
    theirs = transformers.AutoTokenizer.from_pretrained(folders[name])
    texts = [text for text in hard_texts(1500, list(ours.get_added_vocab()), seed=12) if "\x85" not in text]
    assert ours(texts).input_ids == theirs(texts)["input_ids"]
    assert ours.get_vocab().items() >= theirs.get_vocab().items()
    assert ours.special_tokens_map.items() >= {"pad_token": "<pad>", "eos_token": "</s>"}.items()


def test_a_llama_with_unigram_pieces(tmp_path: Path) -> None:
    data = pieces(model_type="unigram", byte_fallback=False, remove_extra_whitespaces=True)
    (tmp_path / "tokenizer.model").write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    ours = AutoTokenizer.from_pretrained(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    oracle = LlamaCpp(with_tiny_model(ours.to_gguf(), tmp_path / "tiny.gguf"))
    texts = [text for text in hard_texts(500, seed=14) if "▁" not in text and "<s>" not in text]
    mine = ours(texts, add_special_tokens=False).input_ids
    assert mine == theirs.encode(texts) == oracle.encode(texts)
    assert ours.encode("a") == oracle.encode_with_special("a") == [1, *theirs.encode("a")]


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_of_llama_cpp_from_what_is_written(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    ours = AutoTokenizer.from_pretrained(folders[name])
    oracle = LlamaCpp(with_tiny_model(ours.to_gguf(), tmp_path / "tiny.gguf"))
    texts = [text for text in hard_texts(1500, list(ours.get_added_vocab()), seed=13) if "ſ" not in text]
    if name in UNIGRAM:  # which finds special tokens also once characters inside of them are dropped
        texts = [text for text in texts if without_marks(text) and _plain(text) and "<mask>" not in text]
    if name.startswith("bert"):
        texts = list(filter(as_bert, texts))
    if name.startswith("qwen"):  # whose composing GGUF does not know
        texts = [text for text in texts if unicodedata.is_normalized("NFC", text)]
    if name == "phi3":  # nor does it know of tokens that swallow spaces
        texts = [text for text in texts if "<|user|>" not in text]
    if name == "llama-json":  # nor that only the whole text's start gets a space, if it has none
        texts = [text for text in texts if "<" not in text and text[:1] not in " ▁"]
    assert len(texts) > 300
    for text, mine, other in zip(
        texts, ours(texts, add_special_tokens=False).input_ids, oracle.encode(texts), strict=True
    ):
        assert mine == other, text
    for text in ("Hello", ""):
        assert ours.encode(text) == oracle.encode_with_special(text)


# What is not as the converter writes it, by name: the keys, for reasons that `file_metadata` gives.
APART = {
    # the converter knows no scores there, and marks special tokens only where they have a role
    "llama-json": {"scores", "token_type"},
    "phi3": {"add_space_prefix"},  # of which it heeds only Llama's
    # it lists the merges of all that are called Gemma 4
    "gemma": {"model", "pre", "merges", "scores", "token_type"},
    "gemma4": {"token_type"},
    "bert": {"cls_token_id"},  # it leaves away what llama.cpp does not read
    "bert-cased": {"cls_token_id"},
    # it says of tokens that no file names nothing, for which readers then take those of the first BERT
    "bert-old": {"unknown_token_id", "seperator_token_id", "cls_token_id", "mask_token_id"},
    # and takes the setting for what decoding does to spaces for what encoding does
    "xlm-roberta": {"cls_token_id", "remove_extra_whitespaces"},
    "mt5": {"unknown_token_id"},  # it presumes that one
    "t5": {"unknown_token_id", "tokens", "scores", "token_type"},  # and has no names for gaps
}


@pytest.mark.parametrize("name", FOLDERS)
def test_metadata_of_the_converter(
    name: str, folders: dict[str, Path], by_converter: dict[Path, Metadata]
) -> None:
    ours = AutoTokenizer.from_pretrained(folders[name])
    apart = {f"tokenizer.ggml.{key}" for key in APART.get(name, ())}
    assert differences(ours.to_gguf(), by_converter[folders[name]]).keys() == apart
    assert pickle.loads(pickle.dumps(ours)).to_gguf() == ours.to_gguf()
