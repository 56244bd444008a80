"""Metadata that describes no tokenizer is one clear error; metadata that leaves things unsaid is not."""

from typing import Any

import pytest

from torchgguf.container import ArrayType, Metadata, ValueType
from torchgguf.tokenization import Tokenizer, TokenizerError

BPE: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["a", "b", "Ġ", "ab", "<s>", "</s>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 1, 3, 3],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 4,
    "tokenizer.ggml.eos_token_id": 5,
}
SPM: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "▁", "a", "▁a"],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1],
    "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -3.0, -2.0, -1.0],
}


def _changed(base: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = {name: old for name, old in base.items() if name != f"tokenizer.ggml.{key}"}
    return changed if value is None else changed | {f"tokenizer.ggml.{key}": value}


@pytest.mark.parametrize(
    ("base", "key", "value", "message"),
    [
        (BPE, "model", None, "model is missing"),
        (BPE, "model", "rwkv", "'rwkv', which is unsupported: it finds the longest sequence of bytes"),
        (BPE, "model", "none", "'none', .*the file holds no vocabulary"),
        (BPE, "model", "new", "'new'; supported are 'gpt2', .*'llama', 'bert', 't5'"),
        (BPE, "model", 7, "model must be a str, got a int"),
        (BPE, "tokens", None, "tokens is missing"),
        (BPE, "tokens", [1, 2, 3], "tokens contains a int"),
        (BPE, "token_type", [1, 1], "token_type has 2 entries for 6 tokens"),
        (BPE, "token_type", [1, 1, 1, 1, 3, 9], "9 is not a token type"),
        (BPE, "token_type", [1, 1, 1, 1, 3, 6], "'</s>' is invalid for a byte"),
        (BPE, "merges", None, "merges is missing"),
        (BPE, "merges", ["a b", "ab"], "'ab' is not two tokens"),
        (BPE, "merges", ["a b c"], "'a b c' is not two tokens"),
        (BPE, "merges", ["a c"], "'a c' needs 'c', which is not among the tokens"),
        (BPE, "merges", ["b a"], "'b a' needs 'ba', which is not among the tokens"),
        (BPE, "eos_token_id", True, "eos_token_id must be a int, got a bool"),
        (BPE, "add_bos_token", 1, "add_bos_token must be a bool, got a int"),
        (BPE, "pre", "nobody-knows", "'nobody-knows'.*pre='llama-bpe'"),
        (SPM, "tokens", ["<unk>", "<s>", "</s>", "▁", "a", "a" * 999_999], "token 5 has 999999 characters"),
        (SPM, "scores", None, "scores is missing"),
        (SPM, "scores", [0.0], "scores has 1 entries for 6 tokens"),
    ],
)
def test_an_error_that_names_the_culprit(base: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_gguf(_changed(base, key, value))
    assert "\n" not in str(caught.value)


def test_a_rule_can_be_named_instead_of_an_unknown_one() -> None:
    tokenizer = Tokenizer.from_gguf(_changed(BPE, "pre", "nobody-knows"), pre="gpt-2")
    assert tokenizer.encode("ab a") == [3, 2, 0]
    assert tokenizer.to_gguf()["tokenizer.ggml.pre"] == "gpt-2"


def test_without_a_rule_the_default_is_used_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"tokenizer\.ggml\.pre is missing.*'default'"):
        assert Tokenizer.from_gguf(_changed(BPE, "pre", None)).encode("ab") == [3]


def test_bos_that_is_wanted_but_not_named() -> None:
    metadata = _changed(BPE, "bos_token_id", None) | {"tokenizer.ggml.add_bos_token": True}
    with pytest.raises(TokenizerError, match=r"bos_token_id is missing: pass add_bos_token=False"):
        Tokenizer.from_gguf(metadata)
    assert Tokenizer.from_gguf(metadata, add_bos_token=False).encode("ab") == [3]


def test_what_files_leave_unsaid() -> None:
    tokenizer = Tokenizer.from_gguf(SPM)
    # llama.cpp's defaults for SentencePiece: BOS is 1, EOS 2, unknown 0; BOS and a space come first
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert tokenizer.encode("a") == [1, 5]
    assert tokenizer.pad_token == "<unk>"
    assert tokenizer.chat_template is None
    assert Tokenizer.from_gguf(_changed(BPE, "token_type", None)).encode("ab") == [3]


def test_padding_leaves_eos_alone() -> None:
    tokens = [*BPE["tokenizer.ggml.tokens"], "<pad>"]
    with_pad = BPE | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1, 1, 1, 1, 3, 3, 3]}
    assert Tokenizer.from_gguf(with_pad).pad_token == "<pad>"
    assert Tokenizer.from_gguf(with_pad | {"tokenizer.ggml.padding_token_id": 4}).pad_token == "<s>"
    assert Tokenizer.from_gguf(BPE).pad_token == "</s>"  # there is nothing else


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"character 1 of a text is U\+D800"):
        Tokenizer.from_gguf(BPE).encode("a\ud800")
    with pytest.raises(TypeError, match="a text must be a str, got a int"):
        Tokenizer.from_gguf(BPE)(["a", 1])


def test_tokens_that_are_no_unicode_are_refused() -> None:
    tokens = Metadata(BPE)
    tokens.set_unchecked(
        "tokenizer.ggml.tokens", ["a", "b", "Ġ", "ab", "<s>", "\udcff"], ArrayType(ValueType.STRING)
    )
    with pytest.raises(TokenizerError, match=r"tokens: .* is not UTF-8"):
        Tokenizer.from_gguf(tokens)
