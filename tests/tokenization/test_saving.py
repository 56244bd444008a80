"""What is saved is what transformers reads, with equal ids; and it comes back as it was."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.support import SMOLLM2, VOCABS
from tests.tokenization.converter import converted, differences, tokenizer_part
from tests.tokenization.folders import FOLDERS, TEMPLATE, model_config
from tests.tokenization.oracles import hard_texts
from torchgguf.tokenization import AutoTokenizer, Tokenizer

NAMES = ["smollm2", "llama", pytest.param("qwen2", marks=pytest.mark.slow)]
# `model_type` of the models that have them: transformers looks at it before it looks at anything else.
MODEL_TYPES = {"smollm2": "llama", "llama": "llama", "qwen2": "qwen2"}


@pytest.mark.parametrize("beside_model", [False, True], ids=["alone", "beside a model"])
@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_equal_ids(
    name: str, beside_model: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ours: Tokenizer = request.getfixturevalue(name)
    ours.save_pretrained(tmp_path)
    if beside_model:
        model_config(tmp_path, "", MODEL_TYPES[name], len(ours))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = hard_texts(2000, ours.all_special_tokens, seed=21)
    if name == "qwen2" and beside_model:  # for which it composes texts, whatever tokenizer.json says
        texts = [text for text in texts if unicodedata.is_normalized("NFC", text)]
    for options in ({"return_offsets_mapping": True}, {"split_special_tokens": True}):
        assert ours(texts, **options) == dict(theirs(texts, **options))
    if not (name == "qwen2" and beside_model):  # nor does it ask whether there is an unknown token
        assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template
    assert (len(ours), ours.model_max_length) == (len(theirs), theirs.model_max_length)
    for text, ids in zip(texts, ours(texts).input_ids, strict=True):
        assert ours.decode(ids) == theirs.decode(ids), text


@pytest.mark.parametrize("name", ["smollm2", "llama", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_reading_it_back(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ours: Tokenizer = request.getfixturevalue(name)
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = hard_texts(1000, ours.all_special_tokens, seed=22)
    assert again(texts) == ours(texts)
    assert (again.roles["eos"], again.eog_token_ids) == (ours.roles["eos"], ours.eog_token_ids)
    changed = differences(again.to_gguf(), ours.to_gguf())
    if name == "llama":  # whose scores are not in tokenizer.json, only the order that they make
        for key in ("scores", "token_type", "add_sep_token", "padding_token_id"):
            del changed[f"tokenizer.ggml.{key}"]
    changed.pop("tokenizer.ggml.add_space_prefix", None)  # which is what is presumed
    assert changed.keys() <= {"tokenizer.ggml.add_eos_token"}  # as it was presumed


def test_the_converter_knows_the_rule(smollm2: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    smollm2.save_pretrained(folder)
    model_config(folder, "LlamaForCausalLM", "llama", len(smollm2))
    by_converter = converted({folder: ""})[folder]
    assert by_converter["tokenizer.ggml.pre"] == "smollm"
    changed = differences(by_converter, tokenizer_part(SMOLLM2))
    assert changed == {"tokenizer.ggml.add_eos_token": (False, None)}
    assert differences(AutoTokenizer.from_pretrained(folder).to_gguf(), by_converter).keys() <= {
        "tokenizer.ggml.add_space_prefix"
    }


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "llama3", "phi3"])
def test_what_came_from_files(name: str, tmp_path: Path) -> None:
    FOLDERS[name][0](tmp_path / "original")
    ours = AutoTokenizer.from_pretrained(tmp_path / "original", padding_side="left")
    ours.save_pretrained(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    texts = hard_texts(1000, list(ours.get_added_vocab()), seed=23)
    assert ours(texts, return_offsets_mapping=True) == dict(theirs(texts, return_offsets_mapping=True))
    assert theirs.padding_side == "left"
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.chat_templates == ours.chat_templates
    assert theirs.get_chat_template() == ours.get_chat_template() if ours.chat_templates else True


def test_templates_are_saved_as_files(smollm2: Tokenizer, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(SMOLLM2)
    tokenizer.chat_templates = {"default": TEMPLATE, "tool_use": TEMPLATE * 2}
    names = [
        Path(path).relative_to(tmp_path).as_posix() for path in tokenizer.save_pretrained(tmp_path, "my")
    ]
    assert names[2:] == ["my-chat_template.jinja", "my-additional_chat_templates/tool_use.jinja"]
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.chat_template == tokenizer.chat_templates
    assert AutoTokenizer.from_pretrained(tmp_path).chat_templates == tokenizer.chat_templates
    tokenizer.chat_templates["../escape"] = TEMPLATE
    with pytest.raises(ValueError, match=r"'\.\./escape' is invalid as the name of a file"):
        tokenizer.save_pretrained(tmp_path)


def test_what_is_set_is_saved(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(SMOLLM2)
    tokenizer.add_bos_token = tokenizer.add_eos_token = True
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(tmp_path)
    for other in (transformers.AutoTokenizer, AutoTokenizer):
        loaded = other.from_pretrained(tmp_path)
        assert loaded("a<tool>", "b")["input_ids"] == tokenizer("a<tool>", "b").input_ids
        assert (loaded.pad_token_id, loaded.convert_tokens_to_ids("<tool>"), len(loaded)) == (0, 49152, 49153)


def test_a_token_that_texts_are_not_searched_for_stays_one(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(SMOLLM2)
    tokenizer.pad_token = "Hello"
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("xHello")["input_ids"] == tokenizer.encode("xHello")


def test_vocabulary_files(smollm2: Tokenizer, llama: Tokenizer, tmp_path: Path) -> None:
    paths = smollm2.save_vocabulary(tmp_path, filename_prefix="my")
    assert [Path(path).name for path in paths] == ["my-vocab.json", "my-merges.txt"]
    assert json.loads(Path(paths[0]).read_text()) == smollm2.get_vocab()
    with pytest.raises(ValueError, match="only byte-level BPE has vocab"):
        llama.save_vocabulary(tmp_path)


def test_gpt2_by_vocabulary_files(tmp_path: Path) -> None:
    from torchgguf.tokenization import GPT2Tokenizer

    ours = GPT2Tokenizer.from_pretrained(VOCABS, gguf_file="ggml-vocab-gpt-2.gguf")
    vocab, merges = ours.save_vocabulary(tmp_path)
    again: Any = GPT2Tokenizer(vocab, merges)
    theirs = transformers.GPT2Tokenizer(vocab, merges)
    texts = hard_texts(2000, ["<|endoftext|>"], seed=24)
    assert ours(texts).input_ids == again(texts).input_ids == theirs(texts)["input_ids"]
