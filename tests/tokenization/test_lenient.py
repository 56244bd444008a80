"""What other programs run, runs here too, with one warning, and is written back as it came."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.tokenization.folders import FOLDERS
from tests.tokenization.test_malformed import BPE, SPM
from torchgguf.container import ArrayType, Metadata, ValueType, write_gguf
from torchgguf.tokenization import AutoTokenizer, Tokenizer

P = "tokenizer.ggml."


def _warnings(call: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = call()
    return result, [str(warning.message) for warning in said]


@pytest.mark.parametrize(
    ("base", "key", "stated", "role", "expected"),
    [
        (BPE, "bos_token_id", 6, "bos", None),
        (BPE, "eos_token_id", -1, "eos", None),
        (BPE, "padding_token_id", 1 << 31, "pad", 5),  # as if it was not stated
        (SPM, "eos_token_id", 6, "eos", 2),  # the default of the kind, as llama.cpp has it
        (SPM, "fim_pre_token_id", 6, "fim_pre", None),
    ],
)
def test_ids_outside_the_vocabulary(
    base: dict[str, Any], key: str, stated: int, role: str, expected: int | None, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "x.gguf", {"general.architecture": "llama", **base, P + key: stated}, {})
    tokenizer, said = _warnings(lambda: Tokenizer.from_gguf(tmp_path / "x.gguf"))
    assert tokenizer.roles.get(role) == (expected if role != "pad" else tokenizer.roles["eos"])
    (warning,) = (text for text in said if key in text)
    assert warning.startswith(f"{tmp_path / 'x.gguf'}: {P}{key} is {stated}, but there are 6 tokens")
    assert tokenizer.to_gguf()[P + key] == stated
    assert tokenizer.encode("a")


@pytest.mark.parametrize("kind", [1, 3, 4, 5])
@pytest.mark.parametrize(("base", "twice", "text"), [(BPE, "ab", "ab"), (SPM, "▁a", "a")])
def test_a_token_that_is_there_twice(base: dict[str, Any], twice: str, text: str, kind: int) -> None:
    lists = {"tokens": [*base[P + "tokens"], twice], "token_type": [*base[P + "token_type"], kind]}
    if P + "scores" in base:
        lists["scores"] = [*base[P + "scores"], -1.5]
    metadata = base | {P + key: values for key, values in lists.items()}
    tokenizer, said = _warnings(lambda: Tokenizer.from_gguf(metadata))
    assert len(said) == 1
    assert "has the ids" in said[0]
    assert len(tokenizer) == 7
    assert tokenizer.convert_tokens_to_ids(twice) == 6  # llama.cpp has the last one
    assert all(0 <= i < 7 for i in tokenizer.encode(text))
    assert tokenizer.convert_ids_to_tokens(range(7)) == metadata[P + "tokens"]
    assert {key: tokenizer.to_gguf()[key] for key in metadata} == metadata
    assert tokenizer.add_tokens("new") == 1
    assert tokenizer.convert_tokens_to_ids("new") == 7


def test_ids_are_those_of_the_vocabulary_whatever_the_types() -> None:
    tokens = ["<pad>", "</s>", "<unk>", "a", "<x>"]
    for kinds in ([3, 5, 2, 1, 5], [5, 5, 5, 1, 5], [3, 5, 2, 5, 4], [1, 1, 1, 1, 1], [4, 4, 4, 4, 4]):
        values = {P + "model": "t5", P + "tokens": tokens, P + "scores": [0.0, 0.0, 0.0, -1.0, -2.0]}
        tokenizer = Tokenizer.from_gguf(values | {P + "token_type": kinds})
        for split in (False, True):
            ids = tokenizer.encode("a</s>a<pad><x> b<unk>", split_special_tokens=split)
            assert all(0 <= i < 5 for i in ids), (kinds, ids)


def test_unused_tokens_have_no_text() -> None:
    values = BPE | {P + "tokens": [*BPE[P + "tokens"], "[PAD6]"], P + "token_type": [1, 1, 1, 1, 3, 3, 5]}
    tokenizer = Tokenizer.from_gguf(values)
    assert tokenizer.decode([0, 6, 1]) == "ab"
    assert tokenizer.convert_ids_to_tokens([6]) == ["[PAD6]"]


def test_no_merges() -> None:
    metadata = Metadata(BPE)
    metadata.set(P + "merges", [], ArrayType(ValueType.STRING))
    tokenizer, said = _warnings(lambda: Tokenizer.from_gguf(metadata))
    assert tokenizer.encode("ab") == [0, 1]
    assert [text.split(":")[0] for text in said] == [f"{P}merges is empty"]
    assert tokenizer.to_gguf()[P + "merges"] == []


def test_no_merges_in_a_folder(tmp_path: Path) -> None:
    FOLDERS["gpt2"][0](tmp_path)
    pipeline = json.loads((tmp_path / "tokenizer.json").read_text())
    pipeline["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(pipeline))
    _, said = _warnings(lambda: AutoTokenizer.from_pretrained(tmp_path))
    assert [text.split(": ")[:2] for text in said] == [["tokenizer.json", '"merges"']]


def test_a_template_that_is_not_utf8() -> None:
    metadata = Metadata(BPE)
    metadata.set_unchecked("tokenizer.chat_template", "\udcff", ValueType.STRING)
    tokenizer, said = _warnings(lambda: Tokenizer.from_gguf(metadata))
    assert said == ["tokenizer.chat_template is not UTF-8: it is ignored"]
    assert tokenizer.chat_template is None
    assert tokenizer.to_gguf()["tokenizer.chat_template"] == "\udcff"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_tokens_without_rows_in_the_model(name: str, tmp_path: Path) -> None:
    tmp_path /= name
    FOLDERS[name][0](tmp_path)
    before = AutoTokenizer.from_pretrained(tmp_path)
    size = len(before)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        **{str(i): token.__getstate__() for i, token in before.added_tokens_decoder.items()},
        str(size): {"content": "<new>"},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<new>"}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.pad_token_id == size
    with pytest.warns(UserWarning, match=rf"'<new>' is left out, as the model has only {size} embeddings"):
        written = tokenizer.to_gguf(vocab_size=size)
    assert len(written[P + "tokens"]) == size
    assert written.get(P + "padding_token_id") is None
    assert Tokenizer.from_gguf(written).encode("the software") == before.encode("the software")
    tokenizer.add_tokens("<mine>")
    with pytest.raises(ValueError, match=r"call model\.resize_token_embeddings"):
        tokenizer.to_gguf(vocab_size=size)


HEADER = "<|user|>q<|end|><|assistant|>"
MESSAGE = "<|{{ m.role }}|>{{ CONTENT }}<|end|>"


@pytest.mark.parametrize(
    ("content", "before", "after", "text", "expected"),
    [
        ("m.content.split('</think>')[-1]|trim", "", "", "<think>a</think>Hi", HEADER + "Hi"),
        ("m.content.split('</think>')[-1]|trim", "", "", "</think>", HEADER),
        ("m.content|trim", "", "", "Hi \n", HEADER + "Hi"),
        ("m.content", "", "", "Hi \n", HEADER + "Hi \n"),
        ("m.content|lower", "", "", "Hi", HEADER + "hi"),
        ("m.content|title", "", "", "hi", HEADER.replace("q", "Q") + "Hi"),
        ("m.content|tojson", "", "", 'say "Hi', HEADER.replace("q", '"q"') + '"say \\"Hi'),
        ("m.content", "[{{ messages[-1].content }}]", "", "Hi", "[Hi]" + HEADER + "Hi"),
        ("m.content", "[{{ messages[-1].content|trim }}]", "", "Hi", "[Hi]" + HEADER + "Hi"),
        ("m.content", "", "[{{ messages[-1].content }}]", "Hi", HEADER + "Hi<|end|>[Hi"),
        ("'\n' ~ m.content|trim", "", "", "", "<|user|>\nq<|end|><|assistant|>\n"),
    ],
)
def test_continuing_what_a_template_rewrites(
    content: str, before: str, after: str, text: str, expected: str
) -> None:
    messages = "{% for m in messages %}" + MESSAGE.replace("CONTENT", content) + "{% endfor %}"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    got = Tokenizer.from_gguf(SPM).apply_chat_template(
        chat, chat_template=before + messages + after, tokenize=False, continue_final_message=True
    )
    assert got == expected
