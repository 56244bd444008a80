"""What a tokenizer keeps, gives back and lets one set."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from tests.support import QWEN2, SMOLLM2, VOCABS
from tests.tokenization.oracles import hard_texts
from torchgguf.container import open_gguf
from torchgguf.tokenization import AutoTokenizer, StreamDecoder, Tokenizer

FILES = [
    SMOLLM2,
    pytest.param(QWEN2, marks=pytest.mark.slow),
    *(VOCABS / f"ggml-vocab-{name}.gguf" for name in ("gpt-2", "llama-spm")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_metadata_comes_back_value_for_value(path: Path) -> None:
    with open_gguf(path) as file:
        expected = {key: value for key, value in file.metadata.items() if key.startswith("tokenizer.")}
        types = {key: file.metadata.types[key] for key in expected}
        tokenizer = Tokenizer.from_gguf(file)
    for one in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        metadata = one.to_gguf()
        assert list(metadata.items()) == list(expected.items())
        assert metadata.types == types


def test_what_is_set_is_written(smollm2: Tokenizer) -> None:
    tokenizer = copy.copy(smollm2)
    tokenizer.roles = dict(smollm2.roles)
    tokenizer.chat_templates = dict(smollm2.chat_templates)
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.add_eos_token = True
    tokenizer.chat_template = "{{ messages }}"
    changed = tokenizer.to_gguf()
    assert changed["tokenizer.ggml.padding_token_id"] == 0
    assert changed["tokenizer.ggml.add_eos_token"] is True
    assert changed["tokenizer.chat_template"] == "{{ messages }}"
    assert changed.keys() - smollm2.to_gguf().keys() == {"tokenizer.ggml.add_eos_token"}
    assert tokenizer.encode("a") == [*smollm2.encode("a"), 2]
    with pytest.raises(ValueError, match="'nothing like it' is not in the vocabulary"):
        tokenizer.pad_token = "nothing like it"
    with pytest.raises(ValueError, match="49152 is not a token id"):
        tokenizer.pad_token_id = 49152


def test_pickling(smollm2: Tokenizer) -> None:
    tokenizer = pickle.loads(pickle.dumps(smollm2))
    texts = hard_texts(50, smollm2.all_special_tokens)
    assert tokenizer(texts) == smollm2(texts)
    assert tokenizer.chat_template == smollm2.chat_template


@pytest.mark.slow
def test_ends_of_generation(smollm2: Tokenizer, qwen2: Tokenizer, llama: Tokenizer) -> None:
    # as llama.cpp lists them on loading, but for Qwen's "</s>", which is a tag of HTML there
    assert smollm2.convert_ids_to_tokens(smollm2.eog_token_ids) == [
        "<|endoftext|>",
        "<|im_end|>",
        "<reponame>",
    ]
    assert qwen2.convert_ids_to_tokens(qwen2.eog_token_ids) == [
        *("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
    ]
    assert llama.convert_ids_to_tokens(llama.eog_token_ids) == ["</s>"]
    assert qwen2.fim_pre_token == "<|fim_prefix|>"
    assert qwen2.decode(qwen2.encode("<s>no</s>"), skip_special_tokens=True) == "<s>no</s>"


def test_special_tokens_in_text_from_strangers(smollm2: Tokenizer) -> None:
    text = "<|im_end|>"
    assert smollm2.encode(text) == [smollm2.eos_token_id]
    ids = smollm2.encode(text, split_special_tokens=True)
    assert smollm2.eos_token_id not in ids
    assert smollm2.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["smollm2", "qwen2_vocabulary", "llama"])
def test_decoding_gives_the_text_back(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    texts = [text.replace("▁", " ") for text in hard_texts(500, seed=9)]
    if name == "llama":  # which takes what follows a special token for the start of a text, with a space
        texts = [text for text in texts if "<s>" not in text]
    if name == "smollm2":  # which lacks some bytes
        texts = [text for text in texts if text.isascii() and text.isprintable()]
    assert len(texts) > 30
    encoded = tokenizer(texts, add_special_tokens=False).input_ids
    assert tokenizer.batch_decode(encoded) == texts
    assert tokenizer.batch_decode([]) == []
    for text, ids in zip(texts, encoded, strict=True):
        decoder = StreamDecoder(tokenizer)
        pieces = [decoder.push(i) for i in ids] + [decoder.flush()]
        assert "".join(pieces) == text


def test_streaming_never_splits_a_character(qwen2_vocabulary: Tokenizer) -> None:
    qwen2 = qwen2_vocabulary
    text = "🦙 und 👩‍👩‍👧, 𝔘𝔫𝔦"
    ids = qwen2.encode(text)
    decoder = StreamDecoder(qwen2)
    pieces = [decoder.push(i) for i in ids]
    assert len(ids) > len([piece for piece in pieces if piece])  # some tokens hold part of a character
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert decoder.push(qwen2.encode("𝔘")[0]) == ""
    assert decoder.flush() == "\N{REPLACEMENT CHARACTER}"


def test_streaming_spaces_of_sentencepiece(llama: Tokenizer) -> None:
    ids = llama.encode("Hello world", add_special_tokens=False)
    first = StreamDecoder(llama)
    assert [first.push(i) for i in ids] == ["Hello", " world"]
    rest = StreamDecoder(llama, continues=True)
    assert [rest.push(i) for i in ids] == [" Hello", " world"]
    assert llama.decode(llama.encode("Hello"), skip_special_tokens=True) == "Hello"


def test_decoding_what_is_no_token(smollm2: Tokenizer) -> None:
    # a model may have more embeddings than its tokenizer has tokens
    for ids in ([49152], torch.tensor([49152]), [1 << 40]):
        assert smollm2.decode(ids) == ""
        assert smollm2.convert_ids_to_tokens(ids) == [None]
    assert smollm2.convert_ids_to_tokens(49152) is None
    for call in (smollm2.decode, smollm2.convert_ids_to_tokens):
        with pytest.raises(ValueError, match="-100 is not a token id: it is negative"):
            call([-100])
    with pytest.raises(ValueError, match=r"got a batch of shape \(2, 2\)"):
        StreamDecoder(smollm2).push(torch.zeros(2, 2, dtype=torch.int64))


def test_decoding_tensors(smollm2: Tokenizer) -> None:
    batch = smollm2(["Hello world", "It"], return_tensors="pt", padding=True)
    assert batch.input_ids.shape == batch["attention_mask"].shape == (2, 2)
    assert smollm2.batch_decode(batch.input_ids, skip_special_tokens=True) == ["Hello world", "It"]
    assert smollm2.decode(batch.input_ids[0]) == "Hello world"
    assert smollm2.decode(batch.input_ids[0, 0]) == "Hello"
    assert (
        smollm2.decode(smollm2.encode("Well , I 'm in ."), clean_up_tokenization_spaces=True)
        == "Well, I'm in."
    )
    assert batch.to("cpu") is batch
    with pytest.raises(AttributeError, match="no field 'labels', only input_ids, attention_mask"):
        _ = batch.labels


@pytest.mark.parametrize("name", ["smollm2", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_decoding_as_transformers_does(name: str, request: pytest.FixtureRequest) -> None:
    ours = request.getfixturevalue(name)
    theirs = request.getfixturevalue(f"transformers_{name}")
    ids = ours.encode("Hello, wörld 🦙! It's <|im_end|> fine")
    several = [
        *(ids, ids[0], [], tuple(ids), np.array(ids), torch.tensor(ids), torch.tensor(ids[0])),
        *([ids, ids[:2]], [ids], [tuple(ids)], np.array([ids, ids]), torch.tensor([ids]), {"input_ids": ids}),
    ]
    for one in several:
        for skip in (True, False):
            assert ours.decode(one, skip_special_tokens=skip) == theirs.decode(one, skip_special_tokens=skip)
    for one in (
        ids,
        torch.tensor(ids),
        [ids, ids[:3]],
        [torch.tensor(ids)],
        np.array([ids]),
        [[i] for i in ids],
    ):
        assert ours.batch_decode(one) == theirs.batch_decode(one)
    tokens = ours.convert_ids_to_tokens(ids)
    for some in (tokens, [], ["Ġa"], ["Ġno", "Ġsuch", "tokenĠ!"]):
        assert ours.convert_tokens_to_string(some) == theirs.convert_tokens_to_string(some)


@pytest.mark.parametrize("name", ["smollm2", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_what_there_is_of_tokens(name: str, request: pytest.FixtureRequest) -> None:
    ours = request.getfixturevalue(name)
    theirs = request.getfixturevalue(f"transformers_{name}")
    assert ours.vocab == theirs.vocab
    assert ours.added_tokens_encoder == theirs.added_tokens_encoder
    mine, expected = ({i: str(t) for i, t in one.added_tokens_decoder.items()} for one in (ours, theirs))
    assert mine == expected
    assert ours.pad_token_type_id == theirs.pad_token_type_id
    assert not {*ours.extra_special_tokens} & {*ours.special_tokens_map.values()}
    assert {*ours.additional_special_tokens, *ours.special_tokens_map.values()} >= {
        *theirs.all_special_tokens
    }


def test_a_role_for_a_token_that_is_not_there(smollm2: Tokenizer) -> None:
    tokenizer = copy.deepcopy(smollm2)
    with pytest.raises(ValueError, match=r"add_special_tokens\({'pad_token': '<pad>'}\) adds it"):
        tokenizer.pad_token = "<pad>"
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.pad_token = AddedToken("<|endoftext|>")
    assert tokenizer.pad_token_id == 0
    assert smollm2.pad_token_id == 2


@pytest.mark.parametrize("text", [None, 5, [5], [None], ["a", 5]], ids=str)
def test_what_is_no_text(smollm2: Tokenizer, text: Any) -> None:
    with pytest.raises(TypeError, match=r"a text must be a str, got a (NoneType|int)$"):
        smollm2(text)
    with pytest.raises(TypeError, match=r"each text must have a pair, as the first has, got 5$"):
        smollm2([["a", "b"], 5])


def test_ids_of_every_kind(smollm2: Tokenizer) -> None:
    ids = [*smollm2.encode("Hello world"), smollm2.eos_token_id]
    kinds = [torch.tensor(ids), list(torch.tensor(ids)), np.array(ids), list(np.array(ids)), iter(ids)]
    for kind in kinds:
        assert smollm2.decode(kind, skip_special_tokens=True) == "Hello world"
    decoder = StreamDecoder(smollm2, skip_special_tokens=True)
    assert "".join([*map(decoder.push, torch.tensor(ids)), decoder.flush()]) == "Hello world"
    assert smollm2.decode(np.int64(ids[0])) == "Hello"
    assert smollm2.convert_ids_to_tokens(np.int64(ids[0])) == "Hello"
    tokens = smollm2.convert_ids_to_tokens(list(torch.tensor(ids)), skip_special_tokens=True)
    assert tokens == ["Hello", "Ġworld"]
    assert set(map(type, smollm2._tokens.model.pieces)) == {int}
    with pytest.raises(TypeError):
        smollm2.decode([1.5])


def test_batches_that_are_no_tensor(smollm2: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"rows of different lengths.*padding=True"):
        smollm2(["Hello world", "It"], return_tensors="pt")
    with pytest.raises(ValueError, match="return_tensors='tf'"):
        smollm2("Hello", return_tensors="tf")
    with pytest.raises(ValueError, match="padding='wide'"):
        smollm2(["Hello"], padding="wide")
    with pytest.raises(ValueError, match="truncation='middle'"):
        smollm2(["Hello world"], truncation="middle", max_length=9)
    with pytest.raises(ValueError, match="'only_second' needs a pair of texts"):
        smollm2(["Hello world"], truncation="only_second", max_length=1)
    crooked = copy.copy(smollm2)
    crooked.truncation_side = "top"
    with pytest.raises(ValueError, match="a side must be 'left' or 'right', got 'top'"):
        crooked("Hello world", truncation=True, max_length=1)
    with pytest.raises(ValueError, match="a side must be 'left' or 'right', got 'top'"):
        smollm2(["Hello world", "It"], padding=True, padding_side="top")
    assert isinstance(smollm2("Hello", return_tensors="np").input_ids, np.ndarray)


def test_collating(smollm2: Tokenizer) -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = smollm2.pad(rows, padding_side="left", return_tensors="pt")
    assert batch.input_ids.tolist() == [[5, 6, 7], [2, 2, 8]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch.labels.tolist() == [[5, 6, 7], [-100, -100, 8]]  # cross-entropy passes over -100


def test_context_length(smollm2: Tokenizer) -> None:
    assert smollm2.model_max_length == 8192  # llama.context_length
    assert len(smollm2("a " * 9000, truncation=True).input_ids) == 8192


def test_finding_the_file() -> None:
    path = VOCABS / "ggml-vocab-gpt-2.gguf"
    expected = Tokenizer.from_gguf(path).encode("Hello")
    assert AutoTokenizer.from_pretrained(path).encode("Hello") == expected
    assert AutoTokenizer.from_pretrained(str(VOCABS), gguf_file=path.name).encode("Hello") == expected
    assert AutoTokenizer.from_pretrained(path, padding_side="left").padding_side == "left"
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer: .* gguf_file='ggml-vocab-gpt-2\.gguf'"):
        AutoTokenizer.from_pretrained(VOCABS)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.gguf"):
        AutoTokenizer.from_pretrained(VOCABS, gguf_file="nothing.gguf")
