"""Token ids equal llama.cpp's: its golden files, and itself on hard text."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from tests.support import SMOLLM2, VOCABS
from tests.tokenization.oracles import LlamaCpp, hard_texts, with_tiny_model
from torchgguf.container import open_gguf
from torchgguf.tokenization import PRE_TOKENIZERS, Tokenizer

NAMES = ["gpt-2", "llama-spm", "qwen2"]


@pytest.mark.parametrize("name", NAMES)
def test_golden_ids(name: str) -> None:
    tokenizer = Tokenizer.from_gguf(VOCABS / f"ggml-vocab-{name}.gguf")
    inputs = (VOCABS / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode()
    texts = inputs.split("\n__ggml_vocab_test__\n")
    expected = [
        [int(i) for i in line.split()]
        for line in (VOCABS / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")[: len(texts)]
    ]
    assert len(texts) > 40
    assert tokenizer(texts, add_special_tokens=False).input_ids == expected


def _assert_equal(
    tokenizer: Tokenizer, oracle: LlamaCpp, texts: list[str], modes: Sequence[bool] = (True, False)
) -> None:
    for parse_special in modes:
        ours = tokenizer(texts, add_special_tokens=False, split_special_tokens=not parse_special).input_ids
        for text, mine, theirs in zip(texts, ours, oracle.encode(texts, parse_special), strict=True):
            assert mine == theirs, (text, parse_special)


@pytest.mark.parametrize("name", NAMES)
def test_hard_text_in_each_vocabulary(name: str, tmp_path: Path) -> None:
    with open_gguf(VOCABS / f"ggml-vocab-{name}.gguf") as file:
        tokenizer = Tokenizer.from_gguf(file)
    oracle = LlamaCpp(with_tiny_model(tokenizer.to_gguf(), tmp_path / "tiny.gguf"))
    special = [*tokenizer.all_special_tokens, "<unk>"]
    _assert_equal(tokenizer, oracle, hard_texts(2000, special))
    text = "Hello world"
    assert tokenizer.encode(text) == oracle.encode_with_special(text)


def _written_in(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the vocabulary has all bytes of the text."""
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return all(character in tokenizer.vocabulary.ids for piece, _ in pieces for character in piece)


def test_hard_text_in_a_model(smollm2: Tokenizer) -> None:
    texts = hard_texts(3000, smollm2.all_special_tokens, seed=1)
    # Bytes that no token is are dropped before merging, as by the original; llama.cpp drops them afterwards.
    texts = [text for text in texts if _written_in(smollm2, text)]
    assert len(texts) > 1500
    _assert_equal(smollm2, LlamaCpp(SMOLLM2), texts)


@pytest.fixture(scope="module")
def unsplit() -> dict[str, Any]:
    """A vocabulary whose merges join whatever is not split: across words, digits, spaces and lines."""
    backend = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = BpeTrainer(
        vocab_size=3000, initial_alphabet=ByteLevel.alphabet(), show_progress=False, max_token_length=12
    )
    backend.train_from_iterator(hard_texts(4000, seed=5), trainer)
    model = json.loads(backend.to_str())["model"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*model["vocab"], "<eos>"],
        "tokenizer.ggml.token_type": [1] * len(model["vocab"]) + [3],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": len(model["vocab"]),
        "tokenizer.ggml.eos_token_id": len(model["vocab"]),
    }


# What llama.cpp only approximates, by name: the texts for which it has the original rule.
def _lower_case_ascii(text: str) -> bool:  # it knows the case of no other letters, or of none
    return text.isascii() and text == text.lower()


def _ascii_space(text: str) -> bool:  # it sees other white space as a vertical tab
    return all(character.isascii() or not character.isspace() for character in text)


def _ascii_digits(text: str) -> bool:
    return all(character.isascii() or not character.isdecimal() for character in text)


def _no_digits(text: str) -> bool:  # it does not split before the first one
    return not any(character.isnumeric() for character in text)


APPROXIMATE: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(["gpt-4o", "granite-embed-multi-97m", "tekken", "tiny_aya", "youtu"], _lower_case_ascii),
    **dict.fromkeys(["deepseek-coder", "deepseek-llm"], _ascii_space),
    "superbpe": _ascii_digits,
    "afmoe": _no_digits,
}
# Names that share a rule need no turn each.
NAMES_OF_RULES = list({rule: name for name, rule in reversed(PRE_TOKENIZERS.items())}.values())


@pytest.mark.parametrize("name", NAMES_OF_RULES)
def test_every_splitting_rule(name: str, unsplit: dict[str, Any], tmp_path: Path) -> None:
    metadata = unsplit | {"tokenizer.ggml.pre": name}
    comparable = APPROXIMATE.get(name, lambda _: True)
    texts = [text for text in hard_texts(1500, seed=6) if "ſ" not in text and comparable(text)]
    assert len(texts) > 100
    tokenizer = Tokenizer.from_gguf(metadata)
    oracle = LlamaCpp(with_tiny_model(metadata, tmp_path / "tiny.gguf"))
    _assert_equal(tokenizer, oracle, texts[:500], modes=[True])
