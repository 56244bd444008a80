"""The kinds of tokenizer beside byte-level BPE, against transformers, sentencepiece and llama.cpp."""

import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2

from tests.tokenization.converter import differences
from tests.tokenization.folders import LINES, byte_level
from tests.tokenization.oracles import LlamaCpp, hard_texts, with_tiny_model
from tests.tokenization.test_vocabularies import vocabulary
from torchgguf import AutoModelForCausalLM
from torchgguf.container import ArrayType, Metadata, ValueType, open_gguf, write_gguf
from torchgguf.tokenization import AutoTokenizer, Tokenizer, TokenizerError

PREFIX = "tokenizer.ggml."


@cache
def _metadata(name: str) -> Metadata:
    with open_gguf(vocabulary(name)) as file:
        return file.metadata.copy()


def _list(name: str, key: str) -> list[Any]:
    value = _metadata(name)[PREFIX + key]
    assert isinstance(value, list)
    return value


@cache
def _ours(name: str) -> Tokenizer:
    return Tokenizer.from_gguf(_metadata(name))


@cache
def _theirs(name: str) -> Any:
    """The tokenizer of transformers that the vocabulary was made from."""
    tokens = _ours(name).get_vocab()
    if name == "bert-bge":
        return transformers.BertTokenizer(vocab=tokens)
    if name == "gemma-4":
        merges = [tuple(merge.split(" ")) for merge in _list(name, "merges")]
        gemma = transformers.GemmaTokenizer(vocab=tokens, merges=merges)
        gemma.add_tokens(list(_ours(name).get_added_vocab()), special_tokens=True)
        return gemma
    scores = dict(zip(tokens, _list(name, "scores"), strict=True))
    pieces = [(token, score) for token, score in scores.items() if not token.startswith("[PAD")]
    charsmap = bytes(_list(name, "precompiled_charsmap"))
    return transformers.XLMRobertaTokenizer(vocab=pieces, _spm_precompiled_charsmap=charsmap)


NAMES = ["bert-bge", "gemma-4", "nomic-bert-moe"]


def _texts(name: str, seed: int) -> list[str]:
    texts = hard_texts(1500, [*_ours(name).all_special_tokens[:20], "<0x41>"], seed=seed)
    # There is one space that XLM-RoBERTa's charsmap, llama.cpp and SentencePiece leave, and transformers not.
    return [text for text in texts if "\x85" not in text] if name == "nomic-bert-moe" else texts


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_texts_of_transformers(name: str) -> None:
    texts = _texts(name, seed=21)
    if name == "nomic-bert-moe":  # the space before it belongs to <mask>, which this class does not know
        texts = [text for text in texts if "<mask>" not in text]
    ours, theirs = (one(texts, add_special_tokens=False).input_ids for one in (_ours(name), _theirs(name)))
    for text, mine, expected in zip(texts, ours, theirs, strict=True):
        assert mine == expected, text
        for skip in (True, False):
            assert _ours(name).decode(mine, skip) == _theirs(name).decode(mine, skip), text


def test_all_of_bert() -> None:
    ours, theirs = _ours("bert-bge"), _theirs("bert-bge")
    texts = _texts("bert-bge", seed=22)
    options: dict[str, Any] = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    assert dict(ours(texts, **options)) == dict(theirs(texts, **options))
    assert dict(ours(texts[:300], texts[300:600])) == dict(theirs(texts[:300], texts[300:600]))
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.get_vocab() == theirs.get_vocab()
    for text in texts:
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        assert "".join(_pieces(ours, ids)) == ours.decode(ids)
    cased = _metadata("bert-bge").copy()
    cased[PREFIX + "normalizer.lowercase"] = False
    theirs = transformers.BertTokenizer(vocab=ours.get_vocab(), do_lower_case=False)
    assert Tokenizer.from_gguf(cased)(texts).input_ids == theirs(texts).input_ids


def _pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    from torchgguf.tokenization import StreamDecoder

    decoder = StreamDecoder(tokenizer)
    return [*map(decoder.push, ids), decoder.flush()]


# What is said of a tokenizer out of files that its vocabulary's file leaves to be presumed, by name; and what
# files of Hugging Face do not say.
SAID = {
    "bert-bge": {"normalizer.lowercase", "bos_token_id", "eos_token_id", "add_bos_token", "add_eos_token"},
    "gemma-4": {"add_eos_token"},
    "nomic-bert-moe": set(),
}
UNSAID = {"token_type_count"}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved(name: str, tmp_path: Path) -> None:
    ours, texts = _ours(name), _texts(name, seed=23)[:300]
    ours.save_pretrained(tmp_path)
    expected = ours(texts).input_ids
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(texts).input_ids == expected
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(texts).input_ids == expected
    assert again.batch_decode(expected) == ours.batch_decode(expected)
    written = again.to_gguf()
    changed = {key.removeprefix(PREFIX) for key in differences(written, ours.to_gguf())}
    if name == "bert-bge":  # made by a converter that did not mark these as words yet
        stated = [
            token.removeprefix("▁") if "[unused" in token else token for token in written[PREFIX + "tokens"]
        ]
        assert stated == _list(name, "tokens")
        changed.remove("tokens")
    assert changed <= {*SAID[name], *UNSAID, "add_sep_token"}


def test_adding_tokens_to_bert(tmp_path: Path) -> None:
    ours = Tokenizer.from_gguf(_metadata("bert-bge"))
    theirs = transformers.BertTokenizer(vocab=ours.get_vocab())
    for one in (ours, theirs):
        one.add_tokens(["hello", "<tool>"], special_tokens=True)
    texts = ["hello <tool>hello", "say hello", "He said Hello<tool>"]
    assert ours([*texts, "hellos"]).input_ids == theirs([*texts, "hellos"]).input_ids
    oracle = LlamaCpp(with_tiny_model(ours.to_gguf(), tmp_path / "tiny.gguf"))
    assert ours(texts, add_special_tokens=False).input_ids == oracle.encode(texts)


def test_space_before_a_mask() -> None:
    ids = _ours("nomic-bert-moe").encode("an  <mask> apple", add_special_tokens=False)
    assert _ours("nomic-bert-moe").convert_ids_to_tokens(ids) == ["▁an", "<mask>", "▁apple"]


def _unigram(**options: Any) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=out,
        vocab_size=500,
        user_defined_symbols=["<TOOL>"],
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    return out.getvalue()


def _by_converter(data: bytes) -> Metadata:
    """What llama.cpp's converter writes of a Unigram model."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(data)
    normalizer = model.normalizer_spec
    values = {
        "model": "t5",
        "tokens": [piece.piece for piece in model.pieces],
        "scores": [piece.score for piece in model.pieces],
        "token_type": [piece.type for piece in model.pieces],
        "add_space_prefix": normalizer.add_dummy_prefix,
        "remove_extra_whitespaces": normalizer.remove_extra_whitespaces,
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    types = {PREFIX + "token_type": ArrayType(ValueType.INT32)}
    if normalizer.precompiled_charsmap:
        values["precompiled_charsmap"] = list(normalizer.precompiled_charsmap)
        types[PREFIX + "precompiled_charsmap"] = ArrayType(ValueType.UINT8)
    return Metadata({PREFIX + key: value for key, value in values.items()}, types)


@pytest.mark.parametrize("bytes_too", [False, True], ids=["unknown", "bytes"])
@pytest.mark.parametrize("prefix", [False, True], ids=["as it is", "space first"])
@pytest.mark.parametrize("merges_spaces", [False, True], ids=["all spaces", "single spaces"])
def test_ids_of_sentencepiece(merges_spaces: bool, prefix: bool, bytes_too: bool, tmp_path: Path) -> None:
    data = _unigram(
        normalization_rule_name="identity",
        remove_extra_whitespaces=merges_spaces,
        add_dummy_prefix=prefix,
        byte_fallback=bytes_too,
    )
    metadata = _by_converter(data)
    ours = Tokenizer.from_gguf(metadata)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    # In texts the library also finds the tokens that stand for bytes.
    texts = [text for text in hard_texts(1500, ["</s>"], seed=24) if "▁" not in text and "<0x" not in text]
    mine = ours(texts, add_special_tokens=False, split_special_tokens=True).input_ids
    for text, ids, expected in zip(texts, mine, theirs.encode(texts), strict=True):
        assert ids == expected, text
    assert ours("a").input_ids == [*theirs.encode("a"), 2]
    if (
        prefix and not bytes_too
    ):  # llama.cpp knows no bytes here, and puts a space first where none is asked for
        oracle = LlamaCpp(with_tiny_model(metadata, tmp_path / "tiny.gguf"))
        texts = [text for text in texts if text.strip(" ") and "</s>" not in text]  # nor before spaces alone
        assert ours(texts, add_special_tokens=False).input_ids == oracle.encode(texts)
        assert ours.encode("a") == oracle.encode_with_special("a")


def test_normalizing_as_sentencepiece(tmp_path: Path) -> None:
    data = _unigram(normalization_rule_name="nmt_nfkc_cf")
    metadata = _by_converter(data)
    ours = Tokenizer.from_gguf(metadata)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    texts = ["Ａｐｐｌｅ\u3000ﬁｎ  ﾊﾝ", " \tÀ la  carte\n", "½ x² ㍿ 한국어 ", "＜ｓ＞", "\u200b\ufeff"]
    options = {"add_special_tokens": False, "split_special_tokens": True}
    assert ours(texts, **options).input_ids == theirs.encode(texts)
    oracle = LlamaCpp(with_tiny_model(metadata, tmp_path / "tiny.gguf"))
    assert ours(texts, **options).input_ids == oracle.encode(texts, parse_special=False)
    texts = ["<TOOL>x<TOOL> y", "</s> x"]  # after which SentencePiece goes on with a text, the others anew
    assert ours(texts, add_special_tokens=False).input_ids == oracle.encode(texts)


def test_no_text_becomes_a_control_token_unless_asked() -> None:
    ours = _ours("nomic-bert-moe")
    for text in ("<s>", "</s> <mask>", "＜ｓ＞", "[PAD250001]"):
        ids = ours.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert not {*ids} & ({*ours.all_special_ids} - {ours.unk_token_id})


def test_maps_of_characters_that_lead_astray() -> None:
    metadata = _by_converter(_unigram(normalization_rule_name="nmt_nfkc"))
    key = PREFIX + "precompiled_charsmap"
    whole = bytes(metadata[key])
    texts = ["Ａｐｐｌｅ ﬁｎ ½ x² ㍿ \u00a0 \u0958\u093c\u0301 한", *hard_texts(30, seed=25)]
    rng = random.Random(0)
    refused = 0
    for turn in range(60):
        data = bytearray(whole[: rng.randrange(1, len(whole))] if turn % 4 == 0 else whole)
        for _ in range(rng.choice((1, 30, 1000))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        broken = metadata.copy()
        broken.set(key, list(data), metadata.types[key])
        try:
            Tokenizer.from_gguf(broken)(texts)
        except TokenizerError as error:
            assert "precompiled_charsmap" in str(error) and "\n" not in str(error)
            refused += 1
    assert 20 < refused < 60


def test_pairs_with_a_separator(tmp_path: Path) -> None:
    backend = byte_level("gpt-2")
    model = json.loads(backend.to_str())["model"]
    special = ("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    tokens = {token: i for i, token in enumerate((*model["vocab"], *special))}
    theirs = transformers.RobertaTokenizer(vocab=tokens, merges=[tuple(merge) for merge in model["merges"]])
    ids = {f"{PREFIX}{role}_token_id": tokens[token] for role, token in (("bos", "<s>"), ("eos", "</s>"))}
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "roberta-bpe",  # for which pairs have a separator unless told otherwise
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": [1] * len(model["vocab"]) + [3] * len(special),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        **ids,
    }
    ours = Tokenizer.from_gguf(metadata)
    assert ours("You may", "copy it").input_ids == theirs("You may", "copy it").input_ids
    assert ours("You may").input_ids == theirs("You may").input_ids
    without = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.add_sep_token": False})
    assert len(without("You may", "copy it").input_ids) == len(ours("You may", "copy it").input_ids)
    ours.save_pretrained(tmp_path)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert saved("You may", "copy it").input_ids == theirs("You may", "copy it").input_ids


UNSUPPORTED = {
    **dict.fromkeys(["none", "no_vocab"], "the file holds no vocabulary"),
    **dict.fromkeys(["rwkv", "plamo2", "hybriddna"], "the tokenizers library has no model"),
    "test": "no numbers into texts",
    "yet another": "supported are 'gpt2'",
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_kinds_that_are_not_supported(kind: str) -> None:
    with pytest.raises(TokenizerError, match=f"model is {kind!r}.*{UNSUPPORTED[kind]}") as caught:
        Tokenizer.from_gguf({"tokenizer.ggml.model": kind})
    assert "\n" not in str(caught.value)


def test_a_rule_for_a_kind_that_has_none() -> None:
    with pytest.raises(TokenizerError, match=r"pre='gpt-2': no rule .*model is 'bert'"):
        Tokenizer.from_gguf(_metadata("bert-bge"), pre="gpt-2")


def test_a_model_without_a_vocabulary_opens(tmp_path: Path) -> None:
    whole = with_tiny_model(_by_converter(_unigram()), tmp_path / "whole.gguf")
    with open_gguf(whole) as file:
        rest = {key: value for key, value in file.metadata.items() if not key.startswith("tokenizer.")}
        metadata = Metadata(rest | {"tokenizer.ggml.model": "none"})
        write_gguf(tmp_path / "none.gguf", metadata, {name: file[name] for name in file.tensors})
        vocab_size = file["token_embd.weight"].shape[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "none.gguf")
    assert model.config.vocab_size == vocab_size
    with pytest.raises(TokenizerError, match="the file holds no vocabulary"):
        AutoTokenizer.from_pretrained(tmp_path / "none.gguf")


def test_what_bert_puts_around_texts() -> None:
    stated = _metadata("bert-bge").copy()
    for role in ("cls", "seperator", "unknown", "padding", "mask"):
        del stated[f"{PREFIX}{role}_token_id"]
    assert Tokenizer.from_gguf(stated).encode("a") == _ours("bert-bge").encode("a")  # llama.cpp's defaults
    assert Tokenizer.from_gguf({**stated, PREFIX + "bos_token_id": 0}).encode("a")[0] == 0
    few = {
        **stated,
        PREFIX + "unknown_token_id": 0,
        PREFIX + "tokens": ["[UNK]", "▁a"],
        PREFIX + "token_type": [3, 1],
    }
    with pytest.raises(TokenizerError, match="cls_token_id is missing"):
        Tokenizer.from_gguf(few)
