"""The splitting rule of a tokenizer out of files has a name by which llama.cpp comes to the same ids."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer
from tokenizers.trainers import BpeTrainer

from tests.tokenization.oracles import LlamaCpp, hard_texts, with_tiny_model
from tests.tokenization.originals import ORIGINALS
from tests.tokenization.test_pre_tokenizers import APPROXIMATE, NAMES_OF_RULES
from torchgguf.tokenization import PRE_TOKENIZERS, AutoTokenizer

RULES = [name for name in NAMES_OF_RULES if PRE_TOKENIZERS[name].byte_level]


def _trained(splitter: PreTokenizer, ignore_merges: bool) -> Tokenizer:
    """A byte-level BPE that was trained on texts so split."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=2500, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(hard_texts(4000, seed=5), trainer)
    return tokenizer


def _saved(tokenizer: Tokenizer, folder: Path) -> Path:
    ends = {"bos_token": "<eos>", "eos_token": "<eos>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def joined() -> Any:
    """Merges across all that rules split."""
    tokenizer = _trained(ByteLevel(add_prefix_space=False, use_regex=False), ignore_merges=False)
    return json.loads(tokenizer.to_str())


def _splitter(name: str) -> PreTokenizer:
    splits = (pre_tokenizers.Split(Regex(split), "isolated") for split in PRE_TOKENIZERS[name].splits)
    return pre_tokenizers.Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize("name", RULES)
def test_rules_as_we_write_them(name: str, joined: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(json.dumps(joined))
    tokenizer.model.ignore_merges = PRE_TOKENIZERS[name].ignore_merges
    tokenizer.pre_tokenizer = _splitter(name)
    found = AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path)).to_gguf()["tokenizer.ggml.pre"]
    assert isinstance(found, str)
    assert PRE_TOKENIZERS[found].ignore_merges == PRE_TOKENIZERS[name].ignore_merges
    for text in hard_texts(1500, seed=7):
        assert _splitter(found).pre_tokenize_str(text) == tokenizer.pre_tokenizer.pre_tokenize_str(text)


@pytest.mark.parametrize(
    ("name", "splitter"),
    [(name, splitter) for name, splitters in ORIGINALS.items() for splitter in splitters],
)
def test_rules_of_published_tokenizers(name: str, splitter: PreTokenizer, tmp_path: Path) -> None:
    original = _trained(splitter, PRE_TOKENIZERS[name].ignore_merges)
    ours = AutoTokenizer.from_pretrained(_saved(original, tmp_path / "folder"))
    written = ours.to_gguf()
    oracle = LlamaCpp(with_tiny_model(written, tmp_path / "tiny.gguf"))
    comparable = APPROXIMATE.get(name, lambda _: True)
    texts = [text for text in hard_texts(1500, seed=6) if "ſ" not in text and comparable(text)][:500]
    assert len(texts) > 100
    expected = [encoding.ids for encoding in original.encode_batch(texts)]
    assert oracle.encode(texts) == expected
    assert ours(texts, add_special_tokens=False).input_ids == expected
