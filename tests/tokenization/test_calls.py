"""Every option of a call, and what an encoding tells of its tokens: as in transformers."""

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.tokenization.folders import FOLDERS
from tests.tokenization.oracles import hard_texts
from torchgguf.tokenization import AutoTokenizer, BatchEncoding, Tokenizer

PAIR_TEMPLATE = "[CLS] $A [SEP] $B:1 [SEP]:1"
TEXTS = [
    "The licensor grants you a worldwide right.",
    "It is",
    "One and two and three and more of them, up to a hundred or so; who knows?",
    "größer 🦙 <|im_end|> end",
    "Copyright law",
]
NAMES = ["gpt2", "llama3", "llama-json", "phi3", "cls"]


def _cls(folder: Path) -> None:
    """Texts between [CLS] and [SEP], with segments, as BERT has them."""
    from tokenizers import processors

    from tests.tokenization.folders import byte_level

    tokenizer = byte_level("gpt-2")
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    ids = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=PAIR_TEMPLATE, special_tokens=list(ids.items())
    )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)
    made.save_pretrained(folder)


@pytest.fixture(scope="module", params=NAMES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """Our tokenizer of a folder, and transformers', with a padding token."""
    folder = tmp_path_factory.mktemp("calls") / request.param
    (_cls if request.param == "cls" else FOLDERS[request.param][0])(folder)
    ours, theirs = (maker.from_pretrained(folder) for maker in (AutoTokenizer, transformers.AutoTokenizer))
    for one in (ours, theirs):
        one.add_special_tokens({"pad_token": "[PAD]"})
    return ours, theirs


def _call(tokenizer: Any, *arguments: Any, **options: Any) -> Any:
    """What a call returns, "refused" for any error."""
    try:
        return tokenizer(*arguments, **options)
    except BaseException as error:  # the library's own panic is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "refused"


def _lists(encoding: Any) -> Any:
    if isinstance(encoding, str):
        return encoding
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in encoding.items()}


LENGTHS = [
    {},
    {"max_length": 9},
    {"truncation": True, "max_length": 9},
    {"truncation": "longest_first", "max_length": 12, "stride": 2},
    {"truncation": "longest_first", "max_length": 13},
    {"truncation": "only_first", "max_length": 40, "stride": 3},
    {"truncation": "only_first", "max_length": 11, "stride": 1},
    {"truncation": "only_second", "max_length": 33},
    {"truncation": "do_not_truncate", "max_length": 9},
    {"truncation": True, "max_length": 7, "stride": 2},
    {"truncation": True, "max_length": 6, "stride": 7, "return_overflowing_tokens": True},
    {"truncation": True, "max_length": 1},
    {"max_length": 9, "truncation": False},
]
PADDINGS = [
    {},
    {"padding": True},
    {"padding": "longest", "pad_to_multiple_of": 8},
    {"padding": "max_length", "max_length": 24, "padding_side": "left"},
    {"padding": "max_length", "max_length": 24, "pad_to_multiple_of": 12},
    {"padding": "do_not_pad"},
]


@pytest.mark.parametrize("overflowing", [False, True], ids=["kept", "overflowing"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_lengths(both: tuple[Tokenizer, Any], side: str, overflowing: bool) -> None:
    everything = {
        "return_token_type_ids": True,
        "return_special_tokens_mask": True,
        "return_offsets_mapping": True,
        "return_length": True,
    }
    texts: list[tuple[Any, ...]] = [(TEXTS,), (TEXTS, TEXTS[::-1]), (TEXTS[2], TEXTS[3])]
    refused = compared = 0
    for arguments, length, padding in itertools.product(texts, LENGTHS, PADDINGS):
        for plain in (False, True):
            options = {**length, **padding, "add_special_tokens": not plain}
            options |= everything if not plain else {}
            if overflowing:
                options["return_overflowing_tokens"] = True
            for one in both:
                one.truncation_side = side
            mine, expected = (_lists(_call(one, *arguments, **options)) for one in both)
            if expected != "refused" and _too_long(expected, options):
                expected = "refused"
            assert mine == expected, (arguments, options)
            refused += expected == "refused"
            compared += expected != "refused"
    assert compared > 100
    assert refused > 10


def _too_long(expected: Any, options: dict[str, Any]) -> bool:
    """Whether the library, which had no room for any token of a text, has put in all of them."""
    cuts = options.get("truncation") not in (None, False, "do_not_truncate")
    rows = expected["input_ids"] if isinstance(expected["input_ids"][0], list) else [expected["input_ids"]]
    return cuts and any(len(row) > options["max_length"] for row in rows)


def test_arrays(both: tuple[Tokenizer, Any]) -> None:
    options: dict[str, Any] = {
        "truncation": True,
        "max_length": 12,
        "stride": 2,
        "padding": True,
        "return_overflowing_tokens": True,
        "return_offsets_mapping": True,
        "return_length": True,
    }
    for kind, arguments in itertools.product(("pt", "np"), [(TEXTS,), (TEXTS[2],), (TEXTS, TEXTS[::-1])]):
        mine, expected = (one(*arguments, **options, return_tensors=kind) for one in both)
        assert list(mine) == list(expected)
        for name, value in mine.items():
            assert type(value) is type(expected[name])
            assert value.dtype == expected[name].dtype
            assert value.tolist() == expected[name].tolist()


@pytest.mark.parametrize("words", [False, True], ids=["texts", "words"])
def test_where_tokens_come_from(both: tuple[Tokenizer, Any], words: bool) -> None:
    ours, _ = both
    texts = [*TEXTS, *hard_texts(8, ["<|im_end|>"], seed=51)]
    options: dict[str, Any] = {"truncation": True, "max_length": 16, "padding": True}
    if words:
        texts = [text.split() or ["a"] for text in texts]
        options["is_split_into_words"] = True
    for side, arguments in zip(("left", "right"), [(texts,), (texts, texts[::-1])], strict=True):
        mine, expected = (one(*arguments, padding_side=side, **options) for one in both)
        for row in range(len(texts)):
            assert mine.tokens(row) == expected.tokens(row)
            assert mine.word_ids(row) == expected.word_ids(row)
            added = [ours.pad_token_id == i for i in mine.input_ids[row]]
            theirs_of = zip(expected.sequence_ids(row), added, strict=True)
            # Without a template the library counts padding to the text.
            assert mine.sequence_ids(row) == [None if is_added else i for i, is_added in theirs_of]
            for token in range(16):
                if not added[token]:
                    assert mine.token_to_sequence(row, token) == expected.token_to_sequence(row, token)
                    assert mine.token_to_word(row, token) == expected.token_to_word(row, token)
                    assert mine.token_to_chars(row, token) == expected.token_to_chars(row, token)
            for place, of in itertools.product(range(12), range(len(arguments))):
                assert mine.char_to_token(row, place, of) == expected.char_to_token(row, place, of)
                assert mine.char_to_word(row, place, of) == _or_none(expected.char_to_word, row, place, of)
                assert mine.word_to_tokens(row, place, of) == expected.word_to_tokens(row, place, of)
                assert mine.word_to_chars(row, place, of) == _or_none(expected.word_to_chars, row, place, of)


def _or_none(method: Any, *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except TypeError:  # it makes a span of what is None
        return None


def test_one_text_alone(both: tuple[Tokenizer, Any]) -> None:
    for one in both:
        one.truncation_side = "right"
    mine, expected = (one(TEXTS[2], return_length=True) for one in both)
    assert mine == dict(expected)
    assert mine.tokens() == expected.tokens() == both[0].tokenize(TEXTS[2], add_special_tokens=True)
    assert mine.word_ids() == expected.word_ids()
    assert mine.sequence_ids() == expected.sequence_ids()
    assert [mine.char_to_token(place) for place in range(20)] == [
        expected.char_to_token(place) for place in range(20)
    ]
    assert mine.word_to_tokens(1) == expected.word_to_tokens(1)
    assert mine.word_to_chars(0) == _or_none(expected.word_to_chars, 0)
    assert mine.token_to_chars(4) == expected.token_to_chars(4)
    tensors = mine.convert_to_tensors("pt", prepend_batch_axis=True)
    assert tensors.input_ids.tolist() == both[1](TEXTS[2], return_tensors="pt").input_ids.tolist()
    for one in both:
        assert one.tokenize(TEXTS[0], TEXTS[1]) == [*one.tokenize(TEXTS[0]), *one.tokenize(TEXTS[1])]
    for copied in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert {name: value.tolist() for name, value in copied.items()} == _lists(mine)
        with pytest.raises(ValueError, match="known only of what the tokenizer has just encoded"):
            copied.tokens()


def test_origins_stay_those_of_the_call(both: tuple[Tokenizer, Any]) -> None:
    tokenizer = copy.deepcopy(both[0])
    encoding = tokenizer(TEXTS, padding=True, padding_side="left")
    expected = tokenizer(TEXTS, padding=True, padding_side="left").tokens(1)
    tokenizer.add_tokens(["It is"])
    tokenizer.padding_side = "right"
    assert encoding.tokens(1) == expected
    assert tokenizer(TEXTS, padding=True).tokens(1) != expected


def test_older_names(both: tuple[Tokenizer, Any]) -> None:
    ours, _ = both
    assert ours.encode_plus(TEXTS[0], TEXTS[1], max_length=5) == ours(TEXTS[0], TEXTS[1], max_length=5)
    assert ours.batch_encode_plus(TEXTS, padding=True) == ours(TEXTS, padding=True)
    ids, more = (ours(text, add_special_tokens=False).input_ids for text in TEXTS[:2])
    for pair in (False, True):
        arguments = (ids, more) if pair else (ids,)
        whole = ours(*TEXTS[: 1 + pair], return_token_type_ids=True, return_special_tokens_mask=True)
        assert ours.build_inputs_with_special_tokens(*arguments) == whole.input_ids
        assert ours.create_token_type_ids_from_sequences(*arguments) == whole.token_type_ids
        assert ours.get_special_tokens_mask(*arguments) == whole.special_tokens_mask


def test_rooms(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    assert ours.max_len_single_sentence == theirs.max_len_single_sentence
    assert ours.max_len_sentences_pair == theirs.max_len_sentences_pair
    for text in TEXTS[:3]:
        ids = ours.encode(text)
        mask = theirs.get_special_tokens_mask(ids, already_has_special_tokens=True)
        assert ours.get_special_tokens_mask(ids, already_has_special_tokens=True) == mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "options",
    [{}, {"pad_to_multiple_of": 8}, {"padding": "max_length", "max_length": 60}, {"padding": False}],
    ids=str,
)
def test_padding_of_encodings(both: tuple[Tokenizer, Any], side: str, options: dict[str, Any]) -> None:
    ours, theirs = both
    options = {**options, "padding_side": side}
    rows = [dict(theirs(text, return_special_tokens_mask=True)) for text in TEXTS]
    labelled: list[dict[str, Any]] = [{**row, "label": i, "weight": 0.5} for i, row in enumerate(rows)]
    tensors = [{name: torch.tensor(value) for name, value in row.items()} for row in rows]
    together = {name: [row[name] for row in rows] for name in rows[0]}
    for given in (rows, labelled, together, tensors, rows[2], {"input_ids": [1, 2, 3]}):
        if given is tensors and not options.get("padding", True):
            continue
        mine, expected = ours.pad(given, **options), theirs.pad(copy.deepcopy(given), **options)
        assert _lists(mine) == _lists(expected)
        for name, value in mine.items():
            assert type(value) is type(expected[name])
    if options.get("padding", True):
        mine, expected = (one.pad(labelled, **options, return_tensors="pt") for one in both)
        assert {name: value.dtype for name, value in mine.items()} == {
            name: value.dtype for name, value in expected.items()
        }


def test_collators_of_transformers(both: tuple[Tokenizer, Any]) -> None:
    rows = [{**both[0](text), "label": i} for i, text in enumerate(TEXTS)]
    mine, expected = (transformers.DataCollatorWithPadding(one)(copy.deepcopy(rows)) for one in both)
    assert _lists(mine) == _lists(expected)
    assert list(mine.labels) == [0, 1, 2, 3, 4]


def test_what_cannot_be(both: tuple[Tokenizer, Any]) -> None:
    ours, _ = both
    with pytest.raises(ValueError, match="stride=6 is not less than the 6 tokens that are kept of a text"):
        ours(TEXTS[0], add_special_tokens=False, truncation=True, max_length=6, stride=6)
    with pytest.raises(ValueError, match="max_length=9 is not a multiple of pad_to_multiple_of=4"):
        ours(TEXTS, truncation=True, max_length=9, padding=True, pad_to_multiple_of=4)
    with pytest.raises(ValueError, match=r"'only_first' does not shorten \[\d+, \d+\] tokens to 1$"):
        ours(TEXTS[1], TEXTS[0], add_special_tokens=False, truncation="only_first", max_length=1)
    with pytest.raises(ValueError, match="padding needs input_ids, got only labels"):
        ours.pad([{"labels": [1]}])
    with pytest.raises(ValueError, match=r"names is invalid as a tensor: .*str"):
        ours.pad({"input_ids": [[1]], "names": ["a"]}, return_tensors="pt")
    with pytest.raises(ValueError, match="where tokens come from is known only of what"):
        BatchEncoding(input_ids=[1]).word_ids()
    with pytest.raises(ValueError, match="needs one list of ids"):
        ours.get_special_tokens_mask([1], [2], already_has_special_tokens=True)
    assert isinstance(ours.pad({"input_ids": np.array([[1, 2]])}).input_ids, np.ndarray)
