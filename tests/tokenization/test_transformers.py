"""Ids, text and chat templates equal those of transformers on the same files."""

import json
import unicodedata
from dataclasses import replace
from typing import Any

import jinja2
import pytest

from tests.support import QWEN2
from tests.tokenization.conversations import CONVERSATIONS, TOOL
from tests.tokenization.oracles import hard_texts
from torchgguf.tokenization import PRE_TOKENIZERS, ChatTemplateError, Tokenizer

slow = pytest.mark.slow


@pytest.fixture(params=["smollm2", pytest.param("qwen2", marks=slow)])
def both(request: pytest.FixtureRequest) -> tuple[Tokenizer, Any]:
    """Our tokenizer, and transformers'."""
    return request.getfixturevalue(request.param), request.getfixturevalue(f"transformers_{request.param}")


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [TOOL], [TOOL, TOOL]], ids=["no tools", "a tool", "tools"])
@pytest.mark.parametrize("add_generation_prompt", [True, False], ids=["prompt", "whole"])
def test_chat_template(
    both: tuple[Tokenizer, Any], name: str, tools: Any, add_generation_prompt: bool
) -> None:
    ours, theirs = both
    options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
    try:
        expected_text = theirs.apply_chat_template(CONVERSATIONS[name], tokenize=False, **options)
    except jinja2.TemplateError:  # SmolLM2's knows no message without content
        with pytest.raises(ChatTemplateError):
            ours.apply_chat_template(CONVERSATIONS[name], **options)
        return
    assert ours.apply_chat_template(CONVERSATIONS[name], tokenize=False, **options) == expected_text
    encoding = ours.apply_chat_template(CONVERSATIONS[name], return_tensors="pt", **options)
    expected = theirs.apply_chat_template(CONVERSATIONS[name], return_tensors="pt", **options)
    assert set(encoding) == set(expected)
    assert encoding.input_ids.tolist() == expected["input_ids"].tolist()
    assert encoding.attention_mask.tolist() == expected["attention_mask"].tolist()


@pytest.mark.parametrize("end", ["go on", "go on  ", "\n"])
def test_continuing_the_final_message(both: tuple[Tokenizer, Any], end: str) -> None:
    ours, theirs = both
    chat = [*CONVERSATIONS["one turn"], {"role": "assistant", "content": end}]
    options = {"tokenize": False, "continue_final_message": True}
    assert ours.apply_chat_template(chat, **options) == theirs.apply_chat_template(chat, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": True, "padding_side": "left"},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 9, "truncation": True},
        {"truncation": True, "max_length": 3},
        {"truncation": "only_second", "max_length": 13, "pairs": True},
        {"truncation": "longest_first", "max_length": 5, "pairs": True, "padding": True},
        {"truncation": True, "max_length": 4, "pairs": True},
        {"padding": True, "return_tensors": "np"},
    ],
    ids=str,
)
def test_batches(smollm2: Tokenizer, transformers_smollm2: Any, options: dict[str, Any]) -> None:
    options = dict(options)
    texts = ["Hello", "The quick brown fox jumps over it", "It is so", "One and two and three"]
    arguments = [texts, texts[::-1]] if options.pop("pairs", False) else [texts]
    ours, theirs = smollm2(*arguments, **options), transformers_smollm2(*arguments, **options)
    for name in ("input_ids", "attention_mask"):
        assert list(map(list, ours[name])) == list(map(list, theirs[name]))


def test_names(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.special_tokens_map == theirs.special_tokens_map
    for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    tokens = ["Ġthe", "Hello", "nothing like it"]
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_ids_to_tokens([5, 99, 7]) == theirs.convert_ids_to_tokens([5, 99, 7])
    assert ours.tokenize("Hello wörld!") == theirs.tokenize("Hello wörld!")
    assert ours.encode("Hello") == theirs.encode("Hello")
    assert ours("Hello") == theirs("Hello")
    assert ours.batch_decode([[5, 99], [7]]) == theirs.batch_decode([[5, 99], [7]])


@slow
def test_composing_like_the_original(transformers_qwen2: Any) -> None:
    # For a GGUF file, transformers leaves the normalizer of its Qwen2Tokenizer away.
    from transformers import Qwen2Tokenizer

    model = json.loads(transformers_qwen2.backend_tokenizer.to_str())["model"]
    theirs = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    ours = Tokenizer.from_gguf(QWEN2, pre=replace(PRE_TOKENIZERS["qwen2"], nfc=True))
    texts = hard_texts(1000, seed=3)
    assert any(not unicodedata.is_normalized("NFC", text) for text in texts)
    assert ours(texts).input_ids == theirs(texts)["input_ids"]
