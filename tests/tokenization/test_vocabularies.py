"""Every vocabulary that llama.cpp has: its golden ids."""

from pathlib import Path

import pytest

from tests.support import LLAMA_CPP, VOCABS
from tests.tokenization.converter import tokenizer_part
from torchgguf.tokenization import Tokenizer

SHARED = ("gpt-2", "llama-spm", "qwen2")
WITH_GOLDENS = (
    *SHARED,
    *("bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "llama-bpe", "mpt"),
    *("phi-3", "qwen35", "refact", "starcoder"),
)
WITHOUT_PRE = ("aquila", "gpt-neox")
ALL = (*WITH_GOLDENS, *WITHOUT_PRE, "baichuan", "nomic-bert-moe")


def vocabulary(name: str) -> Path:
    """The file of the vocabulary with this name."""
    return (VOCABS if name in SHARED else LLAMA_CPP / "models") / f"ggml-vocab-{name}.gguf"


@pytest.fixture(scope="module")
def opened(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    """A name and its tokenizer, made once: tests with the same name come one after the other."""
    return request.param, Tokenizer.from_gguf(vocabulary(request.param))


@pytest.mark.parametrize("opened", WITH_GOLDENS, indirect=True)
def test_golden_ids(opened: tuple[str, Tokenizer]) -> None:
    name, tokenizer = opened
    path = vocabulary(name)
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text().split("\n")[: len(texts)]
    assert len(texts) > 40
    expected = [[int(i) for i in line.split()] for line in lines]
    assert tokenizer(texts, add_special_tokens=False).input_ids == expected


@pytest.mark.parametrize("opened", ALL, indirect=True)
@pytest.mark.filterwarnings("ignore:tokenizer.ggml.pre is missing")
def test_metadata_comes_back_value_for_value(opened: tuple[str, Tokenizer]) -> None:
    name, tokenizer = opened
    stated, written = tokenizer_part(vocabulary(name)), tokenizer.to_gguf()
    assert list(written.items()) == list(stated.items())
    assert written.types == stated.types


@pytest.mark.parametrize("name", WITHOUT_PRE)
def test_a_vocabulary_without_a_rule_gives_a_warning(name: str) -> None:
    with pytest.warns(UserWarning, match=r"tokenizer\.ggml\.pre is missing.*'default'"):
        Tokenizer.from_gguf(vocabulary(name))
