"""What a GGUF file cannot say of a tokenizer is one clear error that names it."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.tokenization.folders import FOLDERS, byte_level, unigram_pieces
from tests.tokenization.oracles import LlamaCpp, with_tiny_model
from torchgguf.tokenization import AutoTokenizer, TokenizerError


def _saved(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_rule_that_is_not_known(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    split = pre_tokenizers.Split(Regex("[aeiou]+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.pre_tokenizer])
    folder = _saved(tokenizer, tmp_path)
    with pytest.raises(TokenizerError, match=r"no known rule splits texts .* pre='llama-bpe'"):
        AutoTokenizer.from_pretrained(folder).to_gguf()
    assert AutoTokenizer.from_pretrained(folder, pre="gpt-2").to_gguf()["tokenizer.ggml.pre"] == "gpt-2"


def test_what_gguf_cannot_say(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(TokenizerError, match=r"the normalizer Lowercase; from_pretrained\(pre=\.\.\.\)"):
        AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path)).to_gguf()

    tokenizer = byte_level("gpt-2")
    folder = _saved(tokenizer, tmp_path)
    with pytest.raises(
        TokenizerError, match="do not support what this tokenizer does: add_prefix_space=True"
    ):
        AutoTokenizer.from_pretrained(folder, add_prefix_space=True).to_gguf()

    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] [SEP] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 400), ("[SEP]", 401)]
    )
    wrapped = AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path))
    assert wrapped.encode("a", "b") == tokenizer.encode("a", "b").ids
    with pytest.raises(TokenizerError, match="adds more around texts than BOS and EOS"):
        wrapped.to_gguf()
    wrapped.add_bos_token = False
    assert wrapped.to_gguf()["tokenizer.ggml.pre"] == "gpt-2"
    assert wrapped.encode("a") == tokenizer.encode("a", add_special_tokens=False).ids

    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, "<unk>"))
    words.decoder = decoders.Metaspace()
    with pytest.raises(TokenizerError, match="does: WordLevel; supported are BPE, WordPiece, Unigram"):
        AutoTokenizer.from_pretrained(_saved(words, tmp_path)).to_gguf()


def _sequence(*steps: Any) -> Any:
    return normalizers.Sequence(list(steps))


_MARKS = normalizers.Replace(" ", "▁")
_UNIGRAM = models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0), ("a▁a", -3.0)], 0)
_WORDPIECE = models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
_BERT = (normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece())
_CHARACTERS = models.BPE(
    {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}, [("a", "b"), ("ab", "c"), ("b", "c")]
)


# A model, how texts are normalized, split and put together again; and what of that GGUF cannot say.
@pytest.mark.parametrize(
    ("model", "normalizer", "splits", "decoder", "message"),
    [
        (_UNIGRAM, None, None, decoders.Metaspace(), "spaces that are not marked"),
        (_UNIGRAM, _sequence(normalizers.NFKD(), _MARKS), None, decoders.Metaspace(), "does: NFKD"),
        (_UNIGRAM, None, pre_tokenizers.Metaspace(), decoders.Metaspace(), "tokens with spaces inside"),
        (
            _UNIGRAM,
            None,
            pre_tokenizers.Sequence(
                [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="never")]
            ),
            decoders.Metaspace(),
            "WhitespaceSplit without a space before each word",
        ),
        (_CHARACTERS, _MARKS, None, decoders.Metaspace(), "BPE of characters without byte_fallback"),
        (_WORDPIECE, normalizers.Lowercase(), *_BERT[1:], r"clean_text=None and handle_chinese_chars=None"),
        (_WORDPIECE, _BERT[0], pre_tokenizers.Whitespace(), _BERT[2], "does: Whitespace"),
        (_WORDPIECE, normalizers.BertNormalizer(clean_text=False), *_BERT[1:], "clean_text=False"),
        (models.WordPiece({"a": 0}, unk_token="[UNK]"), *_BERT, "without a token for unknown words"),
        (
            models.Unigram([("a", 0.0)]),
            None,
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
            "for unknown char",
        ),
        (_WORDPIECE, *_BERT, "does not put texts between two tokens"),
    ],
)
def test_what_other_kinds_of_file_cannot_say(
    model: Any, normalizer: Any, splits: Any, decoder: Any, message: str, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splits, decoder
    with pytest.raises(TokenizerError, match=message) as caught:
        AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path)).to_gguf()
    assert "\n" not in str(caught.value)


def test_merges_that_no_scores_make(tmp_path: Path) -> None:
    bytes_ = {f"<0x{byte:02X}>": 10 + byte for byte in range(256)}
    merges = [("a", "b"), ("ab", "c")]  # but not "a" with "bc", which is a token too
    vocabulary = {
        "a": 0,
        "b": 1,
        "c": 2,
        "ab": 3,
        "bc": 4,
        "abc": 5,
        "▁": 6,
        "▁\n": 7,
        "\n": 8,
        "x": 9,
    } | bytes_
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.normalizer, tokenizer.decoder = _MARKS, decoders.Metaspace(prepend_scheme="never")
    written = AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path)).to_gguf()
    assert written["tokenizer.ggml.pre"] == "sarvam-moe"
    assert written["tokenizer.ggml.merges"] == ["a b", "ab c"]
    oracle = LlamaCpp(with_tiny_model(written, tmp_path / "tiny.gguf"))
    texts = ["abc ab\nbc a", "x  \n\nxbca", "bcé"]
    assert oracle.encode(texts) == [tokenizer.encode(text).ids for text in texts]

    tokenizer.normalizer = _sequence(normalizers.Prepend("▁"), _MARKS)
    with pytest.raises(TokenizerError, match="a space before texts and merges that follow from no scores"):
        AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path)).to_gguf()
    tokenizer.normalizer = _MARKS
    tokenizer.model = models.BPE(vocabulary, [*merges, ("▁", "\n")], byte_fallback=True)
    with pytest.raises(TokenizerError, match="merges across lines"):
        AutoTokenizer.from_pretrained(_saved(tokenizer, tmp_path)).to_gguf()


@pytest.mark.parametrize("name", ["llama", "bert", "mt5-json"])
def test_a_rule_for_what_has_none(name: str, tmp_path: Path) -> None:
    FOLDERS[name][0](tmp_path / name)
    with pytest.raises(TokenizerError, match=r"pre='gpt-2': no rule for splitting text is used where"):
        AutoTokenizer.from_pretrained(tmp_path / name, pre="gpt-2").to_gguf()


def test_an_unknown_rule_by_name(tmp_path: Path) -> None:
    folder = _saved(byte_level("gpt-2"), tmp_path)
    with pytest.raises(TokenizerError, match=r"pre is 'nonsense', an unknown rule"):
        AutoTokenizer.from_pretrained(folder, pre="nonsense").to_gguf()


def test_unigram_pieces_of_an_unknown_class(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(unigram_pieces())
    with pytest.raises(
        TokenizerError, match=r"the class '\(none\)' does not state what is added around texts"
    ):
        AutoTokenizer.from_pretrained(tmp_path)
