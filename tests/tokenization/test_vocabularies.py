"""Every vocabulary that llama.cpp has, and real models: its golden ids, and itself on hard text."""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from tests.support import LLAMA_CPP, SMOLLM2, VOCABS
from tests.tokenization.oracles import LlamaCpp, hard_texts, with_tiny_model
from torchgguf.container import Metadata, open_gguf
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


@pytest.mark.parametrize("name", WITH_GOLDENS)
def test_golden_ids(name: str) -> None:
    path = vocabulary(name)
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text().split("\n")[: len(texts)]
    assert len(texts) > 40
    expected = [[int(i) for i in line.split()] for line in lines]
    assert Tokenizer.from_gguf(path)(texts, add_special_tokens=False).input_ids == expected


def assert_equal(
    tokenizer: Tokenizer, oracle: LlamaCpp, texts: list[str], modes: Sequence[bool] = (True, False)
) -> None:
    """Both give the texts the same ids, with special tokens in them taken for such and not."""
    for parse_special in modes:
        ours = tokenizer(texts, add_special_tokens=False, split_special_tokens=not parse_special).input_ids
        for text, mine, theirs in zip(texts, ours, oracle.encode(texts, parse_special), strict=True):
            assert mine == theirs, (text, parse_special)


# Where llama.cpp departs from the original tokenizers, by name: the texts for which it does not.
def _without_syllables(text: str) -> bool:
    """BERT takes Korean syllables apart, of which llama.cpp keeps the first letter; it drops marks that BERT
    keeps, lets control characters part words that BERT joins, and reads U+2581 as the mark of a word.
    """
    return not any(
        unicodedata.category(c) in ("Mc", "Me") or "\uac00" <= c <= "\ud7a3" or c in "\x0b\x0c\x1c\x85▁"
        for c in text
    )


def _without_marks(text: str) -> bool:
    """The library normalizes a letter with its marks as one, llama.cpp and SentencePiece what is longest."""
    return not any(unicodedata.category(c)[0] == "M" or c in "\u0e33\u200d" for c in text)


def _ascii_space(text: str) -> bool:
    """In some rules, and beside tokens that swallow white space, llama.cpp knows no other."""
    return all(c.isascii() or not c.isspace() for c in text)


COMPARABLE: dict[str, Callable[[str], bool]] = {
    "bert-bge": _without_syllables,
    "deepseek-coder": _ascii_space,
    "deepseek-llm": _ascii_space,
    "nomic-bert-moe": _without_marks,
    "phi-3": _ascii_space,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:tokenizer.ggml.pre is missing")
def test_hard_text_in_each_vocabulary(name: str, tmp_path: Path) -> None:
    with open_gguf(vocabulary(name)) as file:
        tokenizer = Tokenizer.from_gguf(file)
        written = tokenizer.to_gguf()
        metadata = Metadata({**written, "general.name": file.metadata["general.name"]}, written.types)
    oracle = LlamaCpp(with_tiny_model(metadata, tmp_path / "tiny.gguf"))
    special = [token for token in tokenizer.get_added_vocab() if token != "<mask>"][:40]
    texts = list(filter(COMPARABLE.get(name), hard_texts(1000, [*special, "<unk>", "<mask"])))
    assert len(texts) > 400
    assert_equal(tokenizer, oracle, texts)
    assert tokenizer.encode("Hello world") == oracle.encode_with_special("Hello world")


@pytest.mark.parametrize("name", WITHOUT_PRE)
def test_a_vocabulary_without_a_rule_gives_a_warning(name: str) -> None:
    with pytest.warns(UserWarning, match=r"tokenizer\.ggml\.pre is missing.*'default'"):
        Tokenizer.from_gguf(vocabulary(name))


def _written_in(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the vocabulary has all bytes of the text."""
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return all(character in tokenizer.vocabulary.ids for piece, _ in pieces for character in piece)


def test_hard_text_in_a_model(smollm2: Tokenizer) -> None:
    texts = hard_texts(3000, smollm2.all_special_tokens, seed=1)
    # Bytes that no token is are dropped before merging, as by the original; llama.cpp drops them afterwards.
    texts = [text for text in texts if _written_in(smollm2, text)]
    assert len(texts) > 1500
    assert_equal(smollm2, LlamaCpp(SMOLLM2), texts)
