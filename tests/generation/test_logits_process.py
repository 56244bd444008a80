"""Each processor leaves what transformers' own leaves, and narrowing loses nothing that could be drawn."""

import pytest
import torch
import transformers

from torchgguf.generation import GenerationConfig
from torchgguf.generation.logits_process import MinLength, RepetitionPenalty, processors_for
from torchgguf.generation.logits_warp import MinP, Temperature, TopK, TopP, warpers_for

PAIRS = [
    (Temperature(0.7), transformers.TemperatureLogitsWarper(0.7)),
    (TopK(5), transformers.TopKLogitsWarper(5)),
    (TopK(10**6), transformers.TopKLogitsWarper(10**6)),
    (TopP(0.9), transformers.TopPLogitsWarper(0.9)),
    (TopP(0.05), transformers.TopPLogitsWarper(0.05)),
    (TopP(0.0), transformers.TopPLogitsWarper(0.0)),
    (MinP(0.1), transformers.MinPLogitsWarper(0.1)),
    (MinP(1.0), transformers.MinPLogitsWarper(1.0)),
    (RepetitionPenalty(1.3), transformers.RepetitionPenaltyLogitsProcessor(1.3)),
    (
        RepetitionPenalty(1.3, torch.tensor([0, 2, 6])),
        transformers.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=torch.tensor([0, 2, 6])),
    ),
    (MinLength(8, [3, 4]), transformers.MinLengthLogitsProcessor(8, [3, 4])),
    (MinLength(7, [3, 4]), transformers.MinLengthLogitsProcessor(7, [3, 4])),
]


def scores_of(kind: str, vocabulary: int = 3001) -> torch.Tensor:
    scores = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(5)) * 4
    return scores.bfloat16().float() if kind == "many ties" else scores


@pytest.mark.parametrize("kind", ["distinct", "many ties"])
@pytest.mark.parametrize("ours, theirs", PAIRS, ids=lambda p: type(p).__name__)
def test_scores_are_those_of_transformers(ours, theirs, kind):
    scores = scores_of(kind)
    input_ids = torch.randint(0, scores.shape[1], (3, 7), generator=torch.Generator().manual_seed(6))
    before = scores.clone()
    torch.testing.assert_close(ours(input_ids, scores), theirs(input_ids, scores.clone()), rtol=0, atol=0)
    assert torch.equal(scores, before), "the model's logits were overwritten"


@pytest.mark.parametrize("kind", ["distinct", "many ties"])
@pytest.mark.parametrize("ours, theirs", PAIRS[1:6], ids=lambda p: type(p).__name__)
def test_narrowing_keeps_the_distribution(ours, theirs, kind):
    scores = scores_of(kind)
    narrowed = ours.narrow(scores)
    if isinstance(ours, TopK) and ours.top_k > scores.shape[1]:
        assert narrowed is None
        return
    best, tokens = narrowed
    assert best.shape[1] < scores.shape[1] // 5
    full = torch.zeros_like(scores).scatter(1, tokens, best.softmax(-1))
    expected = theirs(None, scores).softmax(-1)
    if kind == "distinct":
        torch.testing.assert_close(full, expected, rtol=1e-5, atol=1e-7)
    else:  # which of several equal tokens stays is nobody's promise, how likely each rank is, is
        torch.testing.assert_close(full.sort().values, expected.sort().values, rtol=1e-5, atol=1e-7)


def test_a_flat_distribution_is_not_narrowed():
    assert TopP(0.9).narrow(torch.zeros(1, 3001)) is None


SETTINGS = [
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    {"temperature": 1.5, "top_k": 0, "top_p": 0.7},
    {"top_k": 3, "min_new_tokens": 4},
    {"top_k": 0, "min_p": 0.2, "min_length": 30},
    {},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_processors_apply_in_the_order_of_transformers(settings, hf_llama):
    eos = [3, 4]
    settings = {"top_k": 50, **settings, "do_sample": True, "eos_token_id": eos}
    theirs = transformers.GenerationConfig(**settings)
    theirs._eos_token_tensor = torch.tensor(eos)
    input_ids = torch.randint(0, 3001, (3, 7), generator=torch.Generator().manual_seed(6))
    expected = hf_llama._get_logits_processor(theirs, input_ids_seq_length=7)(
        input_ids, scores_of("distinct")
    )

    ours, scores = GenerationConfig(**settings), scores_of("distinct")
    for process in [*processors_for(ours, 7, 20), *warpers_for(ours)]:
        scores = process(input_ids, scores)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0)
