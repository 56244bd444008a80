"""What is learnt of records, and what is said of those that are broken."""

import json

import pytest
import transformers

from tests.support import SMOLLM2
from torchgguf import AutoTokenizer
from torchgguf.models.blocks.losses import IGNORED
from torchgguf.training.data import load_training_data

CHAT = [
    {"role": "user", "content": "Where is Paris?"},
    {"role": "assistant", "content": "In France."},
    {"role": "user", "content": "And Rome?"},
    {"role": "assistant", "content": "In Italy."},
]
# Writes no earlier reasoning, as templates of reasoning models do.
END = "<|im_end|>"
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(SMOLLM2)


def learnt(tokenizer, records, **options):
    """The texts that are learnt of the first item, and the data."""
    data = load_training_data(records, tokenizer, **{"max_length": 200, **options})
    texts = []
    for sample in data.items[0].samples:
        pairs = list(zip(sample.input_ids, sample.labels, strict=True))
        assert all(label in (IGNORED, token) for token, label in pairs)
        parts = ("~" if label == IGNORED else tokenizer.decode([label]) for _, label in pairs)
        texts.append("".join(parts).strip("~"))
    return texts, data


def answers(text):
    return [part for part in text.split("~") if part]


def test_of_a_chat_the_answers_are_learnt(tokenizer):
    (text,), _ = learnt(tokenizer, [{"messages": CHAT}])
    assert answers(text) == ["In France.<|im_end|>", "In Italy.<|im_end|>"]


def test_they_are_those_that_transformers_finds_by_the_marks_of_a_template(tokenizer, tmp_path):
    tokenizer.chat_template = MARKED
    tokenizer.save_pretrained(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    encoding = peer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    sample = load_training_data([{"messages": CHAT}], tokenizer, max_length=200).items[0].samples[0]
    assert list(sample.input_ids) == encoding["input_ids"]
    assert [int(label != IGNORED) for label in sample.labels] == encoding["assistant_masks"]


def test_of_a_template_that_rewrites_answers_the_last_is_learnt(tokenizer):
    tokenizer.chat_template = REASONING
    (text,), data = learnt(tokenizer, [{"messages": CHAT}])
    assert answers(text) == ["<think></think>In Italy.<|im_end|>"]
    assert "rewrites earlier answers" in next(data.problems.lines())


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"prompt": "One, two,", "completion": " three"}, [" three<|im_end|>"]),
        ({"prompt": CHAT[:1], "completion": CHAT[1:2]}, ["In France.<|im_end|>"]),
        ({"prompt": CHAT[:3], "completion": CHAT[3:]}, ["In Italy.<|im_end|>"]),
        ({"instruction": "Where?", "output": "Here"}, ["Here<|im_end|>"]),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            ["b<|im_end|>"],
        ),
        ({"prompt": "One,", "chosen": " two", "rejected": " six"}, [" two<|im_end|>", " six<|im_end|>"]),
        (
            {"chosen": CHAT[:2], "rejected": [CHAT[0], {"role": "assistant", "content": "No"}]},
            ["In France.<|im_end|>", "No<|im_end|>"],
        ),
    ],
)
def test_formats(tokenizer, record, texts):
    assert learnt(tokenizer, [record])[0] == texts


def test_a_long_text_is_split_and_nothing_is_lost(tokenizer):
    text = "All the words of a long text. " * 20
    data = load_training_data([{"text": text}], tokenizer, max_length=32)
    tokens = [token for item in data.items for token in item.samples[0].input_ids]
    assert tokens == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert all(item.length <= 32 for item in data.items)


def test_what_is_wrong_is_named_by_line_before_the_training(tokenizer, tmp_path):
    lines = [
        json.dumps({"messages": CHAT}),
        '{"messages": [',
        json.dumps({"messages": [{"role": "bot", "content": "Hi"}]}),
        json.dumps({"messages": []}),
        json.dumps({"messages": [CHAT[0], {"role": "assistant", "content": ""}]}),
        json.dumps({"messages": CHAT[:1]}),
        json.dumps({"question": "?"}),
        json.dumps({"messages": [CHAT[0], {"role": "assistant", "content": "long " * 300}]}),
        json.dumps({"messages": [{"role": "user", "content": "long " * 300}, CHAT[1]]}),
    ]
    path = tmp_path / "chat.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    data = load_training_data(path, tokenizer, max_length=100)
    found = list(data.problems.lines())
    for start, what in (
        ("line 2:", "is not JSON (Expecting value at column 15); left out"),
        ("line 3:", "has the role 'bot'"),
        ("line 4:", "messages must be a list of messages, and not empty"),
        ("line 5:", "has an empty answer"),
        ("line 6:", "has no answer"),
        ("line 7:", "must have the fields of a format"),
        ("line 8:", "is longer than 100 tokens; its end is cut off"),
        ("line 9:", "is longer than 100 tokens, and its answer begins later"),
        ("line 10:", "is not UTF-8"),
    ):
        assert any(line.startswith(start) and what in line for line in found), (start, found)
    assert [item.place for item in data.items] == ["line 1", "line 8"]


def test_held_out_records_are_chosen_by_the_seed(tokenizer):
    records = [{"text": f"Text {i}"} for i in range(20)]
    places = []
    for seed in (0, 0, 1):
        data = load_training_data(records, tokenizer, max_length=50, held_out=0.25, seed=seed)
        assert len(data.held_out) == 5
        assert len(data.items) == 15
        places.append([item.place for item in data.held_out])
    assert places[0] == places[1] != places[2]


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ([], "no usable record: there are no records"),
        ([{"a": 1}], "no usable record: record 1: must have the fields"),
        (
            [{"text": "a b"}, {"prompt": "a", "chosen": "b", "rejected": "c"}],
            "record 2 is of the format 'preference', others of 'text'",
        ),
    ],
)
def test_data_that_cannot_be_used_are_refused(tokenizer, records, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_training_data(records, tokenizer, max_length=50)


def test_parquet_and_datasets_have_the_same_records(tokenizer, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"messages": CHAT}, {"messages": CHAT[:2]}]
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "chat.parquet")
    expected = load_training_data(rows, tokenizer, max_length=200).fingerprint
    assert load_training_data(tmp_path / "chat.parquet", tokenizer, max_length=200).fingerprint == expected
    assert load_training_data(table, tokenizer, max_length=200).fingerprint == expected
