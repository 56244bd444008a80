"""Tokens that are added, and texts that come as words: as in transformers."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken

from tests.support import SMOLLM2
from tests.tokenization.folders import FOLDERS
from tests.tokenization.oracles import LlamaCpp, hard_texts, with_tiny_model
from torchgguf.tokenization import AutoTokenizer, Tokenizer, TokenizerError

NEW = ["<call>", "</call>", "Hello"]
TEXTS = hard_texts(800, [*NEW, "<pad>", "<think>"], seed=41)


@pytest.fixture(params=["gpt2", "qwen2", "llama3", "llama-json"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, Any]:
    """Our tokenizer of a folder, and transformers'."""
    FOLDERS[request.param][0](tmp_path / "folder")
    makers = (AutoTokenizer, transformers.AutoTokenizer)
    ours, theirs = (maker.from_pretrained(tmp_path / "folder") for maker in makers)
    return ours, theirs


def test_adding_as_transformers_does(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    size = len(ours)
    for one in both:
        assert one.add_tokens(NEW) == 3
        assert one.add_tokens([AddedToken("<think>", lstrip=True, rstrip=True, normalized=False)]) == 1
        assert one.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<more>"]}) == 2
        assert one.add_tokens("<call>") == 0
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
    assert len(ours) == size + 6
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.pad_token, ours.pad_token_id) == (theirs.pad_token, theirs.pad_token_id)
    for one in (ours, pickle.loads(pickle.dumps(ours))):
        mine, expected = one(TEXTS, padding=True), theirs(TEXTS, padding=True)
        assert mine == dict(expected)
        for ids in mine.input_ids:
            assert one.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


def test_added_tokens_are_saved(both: tuple[Tokenizer, Any], tmp_path: Path) -> None:
    ours, _ = both
    ours.add_tokens(NEW)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours(TEXTS) == dict(theirs(TEXTS))


@pytest.mark.parametrize("name", ["smollm2", "llama"])
def test_llama_cpp_knows_tokens_added_to_a_gguf_file(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    original: Tokenizer = request.getfixturevalue(name)
    ours = pickle.loads(pickle.dumps(original))
    assert ours.add_tokens(["<tool>", "</tool>"]) == 2
    assert ours.add_special_tokens({"pad_token": "<pad>"}) == 1
    assert (len(ours), ours.vocab_size) == (len(original) + 3, len(original))
    oracle = LlamaCpp(with_tiny_model(ours.to_gguf(vocab_size=len(ours) + 5), tmp_path / "tiny.gguf"))
    texts = [text for text in hard_texts(800, ["<tool>", "</tool>", "<pad>"], seed=42) if text.isascii()]
    assert len(texts) > 80
    for parse_special in (True, False):
        encoded = ours(texts, add_special_tokens=False, split_special_tokens=not parse_special).input_ids
        assert encoded == oracle.encode(texts, parse_special)
    assert (
        ours.decode(ours.encode("a<pad>b", add_special_tokens=False), skip_special_tokens=True) == "ab"
        or name == "llama"
    )
    with pytest.raises(TokenizerError, match="'<x>' has lstrip, rstrip or single_word set"):
        ours.add_tokens(AddedToken("<x>", rstrip=True))


def test_roles_by_name() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2, pad_token="<pad>", bos_token="<|endoftext|>")
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, len(tokenizer)) == (49152, 0, 49153)
    assert tokenizer.to_gguf()["tokenizer.ggml.padding_token_id"] == 49152
    with pytest.raises(ValueError, match="'end_token' is not a role of a token; known are bos_token"):
        tokenizer.add_special_tokens({"end_token": "x"})


def test_more_embeddings_than_tokens(smollm2: Tokenizer) -> None:
    metadata = smollm2.to_gguf(vocab_size=49154)
    assert metadata["tokenizer.ggml.tokens"][-2:] == ["[PAD49152]", "[PAD49153]"]
    assert metadata["tokenizer.ggml.token_type"][-2:] == [5, 5]
    assert smollm2.to_gguf(vocab_size=49152) == smollm2.to_gguf()
    with pytest.raises(ValueError, match=r"49152 tokens, .* 49000 embeddings: call model\.resize_token_emb"):
        smollm2.to_gguf(vocab_size=49000)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_texts_that_are_words(both: tuple[Tokenizer, Any], padding_side: str) -> None:
    ours, theirs = both
    for one in both:
        one.add_special_tokens({"pad_token": "<pad>"})
    words = [[word for word in text.split(" ") if word] or ["a"] for text in TEXTS[:200]]
    options: dict[str, Any] = {
        "is_split_into_words": True,
        "padding": True,
        "padding_side": padding_side,
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
    }
    for arguments in ((words,), (words, words[::-1])):
        mine, expected = ours(*arguments, **options), theirs(*arguments, **options)
        assert mine == dict(expected)
        assert [mine.word_ids(i) for i in range(200)] == [expected.word_ids(i) for i in range(200)]
    assert ours(words[0], is_split_into_words=True) == dict(theirs(words[0], is_split_into_words=True))
    tensors = ours(words, is_split_into_words=True, padding=True, return_tensors="pt")
    assert tensors.input_ids.shape == (200, len(tensors.word_ids(0)))
    with pytest.raises(TypeError, match="a text must be a str, got a int"):
        ours([["a", 1]], is_split_into_words=True)
