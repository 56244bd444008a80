"""Every splitting rule gives the ids that llama.cpp gives, in vocabularies that join what is not split."""

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Split
from tokenizers.trainers import BpeTrainer

from tests.support import LLAMA_CPP
from tests.tokenization.oracles import LlamaCpp, hard_texts, unequal, with_tiny_model
from torchgguf.tokenization import PRE_TOKENIZERS, Tokenizer


def _trained(
    pre_tokenizer: PreTokenizer, texts: list[str], more: list[str], **options: Any
) -> dict[str, Any]:
    """The metadata of a vocabulary with these more tokens, which are bytes."""
    backend = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizer
    trainer = BpeTrainer(vocab_size=3000, show_progress=False, max_token_length=12, **options)
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    end = len(model["vocab"]) + len(more)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*model["vocab"], *more, "<eos>"],
        "tokenizer.ggml.token_type": [1] * len(model["vocab"]) + [6] * len(more) + [3],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": end,
    }


@pytest.fixture(scope="module")
def bytes_joined() -> dict[str, Any]:
    """Merges of bytes across words, digits, spaces and lines."""
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    return _trained(byte_level, hard_texts(4000, seed=5), [], initial_alphabet=ByteLevel.alphabet())


@pytest.fixture(scope="module")
def characters_joined() -> dict[str, Any]:
    """Merges of characters, and tokens for bytes that are left."""
    # llama.cpp ends tokens at zeros
    texts = [re.sub("<0x|\0", "", text).replace(" ", "▁") for text in hard_texts(4000, seed=5)]
    nowhere = Split(Regex(r"\n+"), "isolated")
    return _trained(nowhere, texts, [f"<0x{byte:02X}>" for byte in range(256)], limit_alphabet=500)


# Where llama.cpp only approximates a rule, by its name: the texts for which it has the original.
def _lower_case_ascii(text: str) -> bool:  # it knows the case of no other letters, or of none
    return text.isascii() and text == text.lower()


def _ascii_space(text: str) -> bool:  # it sees other white space as a vertical tab
    return all(character.isascii() or not character.isspace() for character in text)


def _ascii_digits(text: str) -> bool:
    return all(character.isascii() or not character.isdecimal() for character in text)


def _no_digits(text: str) -> bool:  # it does not split before the first one
    return not any(character.isnumeric() for character in text)


def _lower_case_or_none(text: str) -> bool:  # it heeds neither case nor marks
    return text == text.lower() and all(unicodedata.category(c)[0] != "M" for c in text) and "Ⅷ" not in text


def _single_lines(text: str) -> bool:  # it cannot join line breaks
    return "\n\n" not in text


APPROXIMATE: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(["gpt-4o", "granite-embed-multi-97m", "tekken", "tiny_aya", "youtu"], _lower_case_ascii),
    **dict.fromkeys(["deepseek-coder", "deepseek-llm"], _ascii_space),
    "superbpe": _ascii_digits,
    "afmoe": _no_digits,
    "kimi-k2": _lower_case_or_none,
    **dict.fromkeys(["gemma4", "sarvam-moe"], _single_lines),
}
# Names that share a rule need no turn each.
NAMES_OF_RULES = list({rule: name for name, rule in reversed(PRE_TOKENIZERS.items())}.values())


@pytest.mark.parametrize("name", NAMES_OF_RULES)
def test_every_rule(
    name: str, bytes_joined: dict[str, Any], characters_joined: dict[str, Any], tmp_path: Path
) -> None:
    vocabulary = bytes_joined if PRE_TOKENIZERS[name].byte_level else characters_joined
    metadata = vocabulary | {"tokenizer.ggml.pre": name}
    if name == "whitespace":  # which only this kind has
        metadata["tokenizer.ggml.model"] = "whitespace"
    comparable = APPROXIMATE.get(name, lambda _: True)
    texts = [text for text in hard_texts(1500, seed=6) if "ſ" not in text and comparable(text)]
    assert len(texts) > 100
    tokenizer = Tokenizer.from_gguf(metadata)
    oracle = LlamaCpp(with_tiny_model(metadata, tmp_path / "tiny.gguf"))
    assert not unequal(tokenizer, oracle, texts[:500], modes=[True])
    for text in ("", "Hello"):
        assert tokenizer.encode(text) == oracle.encode_with_special(text)


def test_every_name_that_the_converter_writes() -> None:
    source = (LLAMA_CPP / "conversion" / "base.py").read_text()
    names = set(re.findall(r'\bres = "([^"]+)"', source))
    assert len(names) > 80
    of_bert = {"bert-bge", "bert-bge-large", "jina-v2-en"}  # which splits words by a rule of its own
    assert names - of_bert <= PRE_TOKENIZERS.keys()
