"""Each processor leaves what transformers' own leaves, and narrowing loses nothing that could be drawn."""

import pytest
import torch
import transformers

from torchgguf.generation import GenerationConfig
from torchgguf.generation.logits_process import (
    ExponentialDecay,
    Forced,
    MinLength,
    NoRepeatNGram,
    RepetitionPenalty,
    SequenceBias,
    Suppress,
    processors_for,
)
from torchgguf.generation.logits_warp import (
    Epsilon,
    Eta,
    LogNormalization,
    MinP,
    Temperature,
    TopK,
    TopP,
    Typical,
    warpers_for,
)

# Every row repeats itself, and ends in the middle of a repetition.
REPEATING = torch.tensor([[5, 6, 7, 5, 6, 8, 5, 6], [9, 9, 9, 9, 9, 9, 9, 9], [3, 4, 5, 3, 4, 5, 3, 4]])
BIASES = {(7,): -3.5, (5, 6): 2.0, (5, 6, 7): -1.5, (5, 6, 8): 4.0, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10): 9.0}

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
    (MinP(0.3, keep=3), transformers.MinPLogitsWarper(0.3, min_tokens_to_keep=3)),
    (TopK(2, keep=3), transformers.TopKLogitsWarper(2, min_tokens_to_keep=3)),
    (TopP(0.05, keep=4), transformers.TopPLogitsWarper(0.05, min_tokens_to_keep=4)),
    (Typical(0.3), transformers.TypicalLogitsWarper(0.3)),
    (Typical(0.999), transformers.TypicalLogitsWarper(0.999)),
    (Epsilon(0.01), transformers.EpsilonLogitsWarper(0.01)),
    (Epsilon(0.9, keep=2), transformers.EpsilonLogitsWarper(0.9, min_tokens_to_keep=2)),
    (Eta(0.002), transformers.EtaLogitsWarper(0.002)),
    (Eta(0.9, keep=2), transformers.EtaLogitsWarper(0.9, min_tokens_to_keep=2)),
    (LogNormalization(), transformers.LogitNormalization()),
    (MinLength(9, [3, 4]), transformers.MinLengthLogitsProcessor(9, [3, 4])),
    (Forced([11], 8), transformers.ForcedEOSTokenLogitsProcessor(9, 11)),
    (Forced([11, 12], 7), transformers.ForcedEOSTokenLogitsProcessor(8, [11, 12])),
    (Suppress([3, 5]), transformers.SuppressTokensLogitsProcessor([3, 5])),
    (Suppress([3, 5], 8), transformers.SuppressTokensAtBeginLogitsProcessor([3, 5], 8)),
    (Suppress([3, 5], 7), transformers.SuppressTokensAtBeginLogitsProcessor([3, 5], 7)),
    (ExponentialDecay(5, 1.2, [3, 4]), transformers.ExponentialDecayLengthPenalty((5, 1.2), [3, 4], 0)),
    (ExponentialDecay(8, 1.2, [3, 4]), transformers.ExponentialDecayLengthPenalty((8, 1.2), [3, 4], 0)),
    (SequenceBias(BIASES), transformers.SequenceBiasLogitsProcessor(BIASES)),
    (NoRepeatNGram(1), transformers.NoRepeatNGramLogitsProcessor(1)),
    (NoRepeatNGram(2), transformers.NoRepeatNGramLogitsProcessor(2)),
    (NoRepeatNGram(3), transformers.NoRepeatNGramLogitsProcessor(3)),
    (NoRepeatNGram(8), transformers.NoRepeatNGramLogitsProcessor(8)),
    (NoRepeatNGram(9), transformers.NoRepeatNGramLogitsProcessor(9)),
    (MinLength(8, [3, 4]), transformers.MinLengthLogitsProcessor(8, [3, 4])),
]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_what_is_forbidden_stays_so_however_long_the_text(factor):
    """Where transformers makes it NaN, which passes for the best."""
    scores = scores_of("distinct").index_fill(1, torch.tensor([3]), -torch.inf)
    longer = ExponentialDecay(5, factor, [3, 4])(REPEATING, scores)
    assert (longer[:, 3] == -torch.inf).all()
    expected = transformers.ExponentialDecayLengthPenalty((5, factor), [4], 0)(REPEATING, scores)
    assert torch.equal(longer, expected)


def scores_of(kind: str, vocabulary: int = 3001) -> torch.Tensor:
    scores = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(5)) * 4
    return scores.bfloat16().float() if kind == "many ties" else scores


@pytest.mark.parametrize("kind", ["distinct", "many ties"])
@pytest.mark.parametrize("ours, theirs", PAIRS, ids=lambda p: type(p).__name__)
def test_scores_are_those_of_transformers(ours, theirs, kind):
    scores = scores_of(kind)
    before = scores.clone()
    torch.testing.assert_close(ours(REPEATING, scores), theirs(REPEATING, scores.clone()), rtol=0, atol=0)
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
    {"typical_p": 0.8, "epsilon_cutoff": 0.001, "eta_cutoff": 0.002, "renormalize_logits": True},
    {"do_sample": False, "renormalize_logits": True, "temperature": 0.5},
    {"bad_words_ids": [[3], [7], [5, 6]], "no_repeat_ngram_size": 3, "sequence_bias": [[[5, 7], -2.0]]},
    {"suppress_tokens": [3, 9], "begin_suppress_tokens": [8], "exponential_decay_length_penalty": (0, 1.2)},
    {"forced_eos_token_id": 3, "suppress_tokens": [9], "max_length": 9},
    {"num_beams": 3, "top_k": 2, "top_p": 0.2, "typical_p": 0.5, "min_p": 0.9, "eta_cutoff": 0.5},
    {"num_beams": 3, "top_k": 1, "epsilon_cutoff": 0.9, "eos_token_id": None},
    {},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_processors_apply_in_the_order_of_transformers(settings, hf_llama):
    settings = {"top_k": 50, "do_sample": True, "eos_token_id": [3, 4], "max_length": 40, **settings}
    theirs = transformers.GenerationConfig(**settings)
    theirs._eos_token_tensor = None if theirs.eos_token_id is None else torch.tensor(theirs.eos_token_id)
    for ids in (REPEATING, torch.cat((REPEATING, REPEATING), 1)):
        expected = hf_llama._get_logits_processor(theirs, input_ids_seq_length=8)(ids, scores_of("distinct"))
        ours, scores = GenerationConfig(**settings), scores_of("distinct")
        for process in [*processors_for(ours, 8, settings["max_length"]), *warpers_for(ours)]:
            scores = process(ids, scores)
        torch.testing.assert_close(scores, expected, rtol=0, atol=0)


@pytest.mark.parametrize("forced", [None, 7])
@pytest.mark.parametrize("length", [1, 2])
def test_the_first_tokens_are_suppressed_after_the_forced_one(hf_llama, forced, length):
    settings = {"forced_bos_token_id": forced, "begin_suppress_tokens": [7, 8]}
    theirs = hf_llama._get_logits_processor(transformers.GenerationConfig(**settings), length)
    for more in range(3):
        ids, scores = torch.full((3, length + more), 5), scores_of("distinct")
        expected = theirs(ids, scores.clone())
        for process in processors_for(GenerationConfig(**settings), length, 9):
            scores = process(ids, scores)
        torch.testing.assert_close(scores, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [{"suppress_tokens": [3001]}, {"bad_words_ids": [[5], [6, 3001]]}, {"sequence_bias": {(3001, 4): 1.0}}],
    ids=str,
)
def test_tokens_beyond_the_vocabulary_are_refused(settings):
    (process,) = processors_for(GenerationConfig(**settings), 8, 9)
    with pytest.raises(ValueError, match="tokens must be below the vocabulary's size of 3001, got 3001"):
        process(REPEATING, scores_of("distinct"))
