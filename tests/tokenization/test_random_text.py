"""Random text of every kind: llama.cpp's ids and transformers', and the text itself when it is decoded.

`TORCHGGUF_TEXTS=100000` has as many texts taken in each comparison; see docs/testing.md.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from tests.support import QWEN2, SMOLLM2
from tests.tokenization.oracles import (
    LlamaCpp,
    as_bert,
    batches_of_texts,
    hard_texts,
    unequal,
    with_tiny_model,
    without_marks,
)
from tests.tokenization.test_vocabularies import ALL, vocabulary
from torchgguf.container import Metadata, open_gguf
from torchgguf.tokenization import Tokenizer

slow = pytest.mark.slow
MODELS = {"smollm2": SMOLLM2, "qwen2-model": QWEN2}
MODEL_NAMES = ["smollm2", pytest.param("qwen2-model", marks=slow)]


def _path(name: str) -> Path:
    return MODELS.get(name) or vocabulary(name)


def _special(tokenizer: Tokenizer) -> list[str]:
    """Some of the tokens that texts are searched for, and what only looks like one."""
    return [*[token for token in tokenizer.get_added_vocab() if token != "<mask>"][:40], "<unk>", "<mask"]


def test_every_kind_of_text_occurs() -> None:
    text = "".join(hard_texts(20_000, ["<|im_end|>"]))
    assert {unicodedata.category(character) for character in text} == {
        *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi"),
        *("Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn"),
    }
    assert {ord(character) >> 16 for character in text} == {*range(17)}
    for part in ("<|im_end|>", "<|im_", "end|>", "\r\n", "   ", "\N{ZERO WIDTH JOINER}\N{FOG}"):
        assert part in text
    assert {*map(chr, range(32)), "\x7f"} <= {*text}


# Where llama.cpp departs from the original tokenizers, by name: the texts for which it does not.
def _ascii_space(text: str) -> bool:
    """In some rules, and beside tokens that swallow white space, llama.cpp knows no other."""
    return all(c.isascii() or not c.isspace() for c in text)


def _as_xlm_roberta(text: str) -> bool:
    """<mask> swallows the space before it, of which llama.cpp knows one less."""
    return without_marks(text) and "\x85" not in text


def _without_overlaps(special: Iterable[str]) -> Callable[[str], bool]:
    """Of two special tokens that overlap, the one further left is the original's, llama.cpp's the longer."""
    tokens = re.compile(f"(?=({'|'.join(map(re.escape, sorted(special, key=len, reverse=True)))}))")

    def fits(text: str) -> bool:
        spans = [match.span(1) for match in tokens.finditer(text)]
        return not any(start < end < other for (_, end), (start, other) in itertools.pairwise(spans))

    return fits


COMPARABLE: dict[str, Callable[[str], bool]] = {
    "bert-bge": as_bert,
    "deepseek-coder": _ascii_space,
    "deepseek-llm": _ascii_space,
    "nomic-bert-moe": _as_xlm_roberta,
    "phi-3": _ascii_space,
}


@pytest.mark.parametrize("name", [*MODEL_NAMES, *ALL])
@pytest.mark.filterwarnings("ignore:tokenizer.ggml.pre is missing")
def test_ids_of_llama_cpp(name: str, tmp_path: Path) -> None:
    path = _path(name)
    with open_gguf(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
        if name not in MODELS:
            written = tokenizer.to_gguf()
            metadata = Metadata({**written, "general.name": file.metadata["general.name"]}, written.types)
            path = with_tiny_model(metadata, tmp_path / "tiny.gguf")
    oracle = LlamaCpp(path)
    # Bytes that no token is are dropped before merging, as by the original; llama.cpp drops them afterwards.
    comparable = COMPARABLE.get(name, _written_in(tokenizer))
    overlaps_not = _without_overlaps(tokenizer.get_added_vocab())
    compared, differ = 0, []
    for batch in batches_of_texts(1000, _special(tokenizer)):
        texts = [text for text in batch if comparable(text) and overlaps_not(text)]
        compared += len(texts)
        differ += unequal(tokenizer, oracle, texts)
    assert not differ, f"{len(differ)} of {compared}, the shortest {min(differ, key=lambda row: len(row[0]))}"
    assert compared > 300
    assert tokenizer.encode("Hello world") == oracle.encode_with_special("Hello world")


def _written_in(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether a vocabulary of bytes has all those of a text."""
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    if tokenizer.to_gguf()["tokenizer.ggml.model"] != "gpt2":
        return lambda text: True
    lacking = set(byte_level.alphabet()) - tokenizer.get_vocab().keys()
    return lambda text: not any(lacking & {*piece} for piece, _ in byte_level.pre_tokenize_str(text))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_ids_and_texts_of_transformers(name: str, request: pytest.FixtureRequest) -> None:
    ours: Tokenizer = request.getfixturevalue(name.removesuffix("-model"))
    theirs: Any = request.getfixturevalue(f"transformers_{name.removesuffix('-model')}")
    if name == "smollm2":  # whose splitting rule transformers does not heed: this is the original's
        split = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
        theirs.backend_tokenizer.pre_tokenizer = split
    for texts in batches_of_texts(2000, [token for token in ours.all_special_tokens if "<|" in token]):
        mine, expected = (one(texts, return_offsets_mapping=True) for one in (ours, theirs))
        assert mine.input_ids == expected["input_ids"]
        assert mine.offset_mapping == expected["offset_mapping"]
        for skip in (True, False):
            assert ours.batch_decode(mine.input_ids, skip_special_tokens=skip) == theirs.batch_decode(
                expected["input_ids"], skip_special_tokens=skip
            )


# Vocabularies that do not promise to give texts back: BERT's and XLM-RoBERTa's normalize them.
LOSSY = {"bert-bge", "nomic-bert-moe"}
# SentencePiece's write its mark for a space, and put one first where a text begins or goes on after a token.
MARKED = {"llama-spm", "phi-3", "baichuan", "gemma-4"}


@pytest.mark.parametrize("name", [*MODEL_NAMES, *(name for name in ALL if name not in LOSSY)])
@pytest.mark.filterwarnings("ignore:tokenizer.ggml.pre is missing")
def test_texts_come_back(name: str) -> None:
    tokenizer = Tokenizer.from_gguf(_path(name))
    comparable = _written_in(tokenizer)
    special = tuple(tokenizer.get_added_vocab())
    for batch in batches_of_texts(500, _special(tokenizer), seed=9):
        texts = [text.replace("▁", " ") if name in MARKED else text for text in batch]
        texts = [text for text in texts if comparable(text)]
        if name in MARKED:
            texts = [text for text in texts if not any(token in text for token in special)]
        assert len(texts) > 150
        assert tokenizer.batch_decode(tokenizer(texts, add_special_tokens=False).input_ids) == texts
