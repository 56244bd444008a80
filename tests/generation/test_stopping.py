"""Stopping criteria say of every prefix of real texts what transformers' say."""

import pytest
import torch
import transformers

from tests.generation.conftest import TEXT
from torchgguf.generation import EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria, StopStringCriteria

STOPS = ["stop", "\n\n", "###END###", ["café", "世界"], "🎉", ["fox stops", "1}"], "o", "never there"]


@pytest.mark.parametrize("stop", STOPS, ids=repr)
def test_stop_strings_end_where_transformers_ends(hf_tokenizer, stop):
    ids = torch.tensor([hf_tokenizer("".join(TEXT[:2]))["input_ids"]])
    ours = StopStringCriteria(hf_tokenizer, stop)
    theirs = transformers.StopStringCriteria(hf_tokenizer, stop)
    ends = [[done(ids[:, :n], None).item() for n in range(1, ids.shape[1] + 1)] for done in (ours, theirs)]
    assert ends[0] == ends[1]
    assert any(ends[0]) == (stop != "never there")


def test_rows_of_a_batch_are_judged_alone(hf_tokenizer):
    rows = [hf_tokenizer(text)["input_ids"][-4:] for text in ("the quick fox stops", "hello there, it is")]
    assert StopStringCriteria(hf_tokenizer, ["tops"])(torch.tensor(rows)).tolist() == [True, False]


def test_an_empty_stop_string_is_refused(hf_tokenizer):
    with pytest.raises(ValueError, match="empty stop string"):
        StopStringCriteria(hf_tokenizer, ["stop", ""])


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (EosTokenCriteria([3, 9]), transformers.EosTokenCriteria([3, 9])),
        (MaxTimeCriteria(60), transformers.MaxTimeCriteria(60)),
        (MaxTimeCriteria(60, 1e9), transformers.MaxTimeCriteria(60, 1e9)),
        (MaxLengthCriteria(4), transformers.MaxLengthCriteria(4)),
        (MaxLengthCriteria(3), transformers.MaxLengthCriteria(3)),
    ],
)
def test_token_criteria_are_those_of_transformers(ours, theirs):
    ids = torch.tensor([[3, 1, 2], [1, 2, 3], [9, 9, 9]])
    assert torch.equal(ours(ids, None), theirs(ids, None))
