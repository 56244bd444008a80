"""Each processor leaves what transformers' own leaves, and narrowing loses nothing that could be drawn."""

import inspect
from typing import Any

import pytest
import torch
import transformers

from torchgguf.generation import GenerationConfig, logits_process, logits_warp
from torchgguf.generation.logits_process import ExponentialDecayLengthPenalty
from torchgguf.generation.logits_warp import TopKLogitsWarper, TopPLogitsWarper
from torchgguf.generation.processing import processors_for, warpers_for

# Every row repeats itself, and ends in the middle of a repetition.
REPEATING = torch.tensor([[5, 6, 7, 5, 6, 8, 5, 6], [9, 9, 9, 9, 9, 9, 9, 9], [3, 4, 5, 3, 4, 5, 3, 4]])
BIASES = {(7,): -3.5, (5, 6): 2.0, (5, 6, 7): -1.5, (5, 6, 8): 4.0, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10): 9.0}


def _allowed(prompt: int, text: torch.Tensor) -> list[int]:
    return [prompt + 1, int(text[0]), 2999]


PREFIXES = torch.tensor([0, 2, 6])
# The name, and the arguments.
MADE: list[tuple[str, tuple[object, ...], dict[str, object]]] = [
    ("TemperatureLogitsWarper", (0.7,), {}),
    ("TopKLogitsWarper", (5,), {}),
    ("TopKLogitsWarper", (10**6,), {}),
    ("TopPLogitsWarper", (0.9,), {}),
    ("TopPLogitsWarper", (0.05,), {}),
    ("TopPLogitsWarper", (0.0,), {}),
    ("MinPLogitsWarper", (0.1,), {}),
    ("MinPLogitsWarper", (1.0,), {"filter_value": -9.0}),
    ("RepetitionPenaltyLogitsProcessor", (1.3,), {}),
    ("RepetitionPenaltyLogitsProcessor", (1.3,), {"prompt_ignore_length": PREFIXES}),
    ("RepetitionPenaltyLogitsProcessor", (1.3, 5), {}),
    ("MinPLogitsWarper", (0.3,), {"min_tokens_to_keep": 3}),
    ("TopKLogitsWarper", (2, -5.0), {"min_tokens_to_keep": 3}),
    ("TopPLogitsWarper", (0.05, -5.0, 4), {}),
    ("TypicalLogitsWarper", (0.3,), {}),
    ("TypicalLogitsWarper", (), {"filter_value": -7.0}),
    ("TypicalLogitsWarper", (0.999,), {}),
    ("EpsilonLogitsWarper", (0.01,), {}),
    ("EpsilonLogitsWarper", (0.9,), {"min_tokens_to_keep": 2}),
    ("EtaLogitsWarper", (0.002,), {}),
    ("EtaLogitsWarper", (0.9,), {"min_tokens_to_keep": 2, "device": "cpu"}),
    ("LogitNormalization", (), {}),
    ("InfNanRemoveLogitsProcessor", (), {}),
    ("MinLengthLogitsProcessor", (9, [3, 4]), {}),
    ("MinLengthLogitsProcessor", (8, [3, 4]), {}),
    ("MinLengthLogitsProcessor", (9,), {"eos_token_id": torch.tensor([3, 9000])}),
    ("MinNewTokensLengthLogitsProcessor", (6, 3, 4), {}),
    ("MinNewTokensLengthLogitsProcessor", (6, 2, 4), {"device": "cpu"}),
    ("ForcedBOSTokenLogitsProcessor", (7,), {}),
    ("ForcedEOSTokenLogitsProcessor", (9, 11), {}),
    ("ForcedEOSTokenLogitsProcessor", (8, [11, 12]), {}),
    ("ForcedEOSTokenLogitsProcessor", (9, torch.tensor([11, 12])), {}),
    ("SuppressTokensLogitsProcessor", ([3, 5],), {}),
    ("SuppressTokensLogitsProcessor", ([3, 9000],), {"device": "cpu"}),
    ("SuppressTokensAtBeginLogitsProcessor", ([3, 5], 8), {}),
    ("SuppressTokensAtBeginLogitsProcessor", ([3, 5], 7), {}),
    ("ExponentialDecayLengthPenalty", ((5, 1.2), [3, 4], 0), {}),
    ("ExponentialDecayLengthPenalty", ((2, 1.2), 3, 6), {}),
    ("ExponentialDecayLengthPenalty", ((2, 1.2), 3), {"input_ids_seq_length": 2}),
    ("SequenceBiasLogitsProcessor", (BIASES,), {}),
    ("SequenceBiasLogitsProcessor", ([[[5, 6, 7], -1.5], [[9], 2.0]],), {}),
    ("NoBadWordsLogitsProcessor", ([[7], [5, 6, 7], [3], [9, 9]],), {"eos_token_id": [3]}),
    ("NoBadWordsLogitsProcessor", ([[7], [5, 6, 7], [3]],), {}),
    ("PrefixConstrainedLogitsProcessor", (_allowed, 1), {}),
    ("PrefixConstrainedLogitsProcessor", (_allowed,), {"num_beams": 3}),
    *[("NoRepeatNGramLogitsProcessor", (size,), {}) for size in (1, 2, 3, 8, 9)],
]


def made(name: str, arguments: tuple[object, ...], options: dict[str, object]) -> tuple[Any, Any]:
    """Make a processor here and in transformers."""
    ours = getattr(logits_process, name, None) or getattr(logits_warp, name)
    theirs = getattr(transformers.generation.logits_process, name)
    return tuple(kind(*arguments, **options) for kind in (ours, theirs))


@pytest.mark.parametrize("name", sorted({name for name, _, _ in MADE}))
def test_arguments_are_those_of_transformers(name):
    ours = getattr(logits_process, name, None) or getattr(logits_warp, name)
    theirs = getattr(transformers.generation.logits_process, name)
    parameters = [inspect.signature(kind).parameters for kind in (ours, theirs)]
    assert list(parameters[0]) == list(parameters[1])
    assert [p.default for p in parameters[0].values()] == [p.default for p in parameters[1].values()]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("TemperatureLogitsWarper", (0.0,)),
        ("TemperatureLogitsWarper", (-1.0,)),
        ("TopKLogitsWarper", (0,)),
        ("TopKLogitsWarper", (-1,)),
        ("TopKLogitsWarper", (1.5,)),
        ("TopPLogitsWarper", (1.5,)),
        ("TopPLogitsWarper", (0.5, 0.0, 0)),
        ("MinPLogitsWarper", (-0.1,)),
        ("TypicalLogitsWarper", (1.0,)),
        ("EpsilonLogitsWarper", (0.0,)),
        ("EtaLogitsWarper", (1.0,)),
        ("RepetitionPenaltyLogitsProcessor", (0.0,)),
        ("NoRepeatNGramLogitsProcessor", (0,)),
        ("MinLengthLogitsProcessor", (-1, 3)),
        ("MinNewTokensLengthLogitsProcessor", (4, -1, 3)),
        ("SequenceBiasLogitsProcessor", ({(-1,): 1.0},)),
    ],
)
def test_what_transformers_refuses_is_refused(name, arguments):
    ours = getattr(logits_process, name, None) or getattr(logits_warp, name)
    for kind in (getattr(transformers.generation.logits_process, name), ours):
        with pytest.raises(ValueError):
            kind(*arguments)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_what_is_forbidden_stays_so_however_long_the_text(factor):
    """Where transformers makes it NaN, which passes for the best."""
    scores = scores_of("distinct").index_fill(1, torch.tensor([3]), -torch.inf)
    longer = ExponentialDecayLengthPenalty((5, factor), [3, 4], 0)(REPEATING, scores)
    assert (longer[:, 3] == -torch.inf).all()
    expected = transformers.ExponentialDecayLengthPenalty((5, factor), [4], 0)(REPEATING, scores)
    assert torch.equal(longer, expected)


def scores_of(kind: str, vocabulary: int = 3001) -> torch.Tensor:
    scores = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(5)) * 4
    return scores.bfloat16().float() if kind == "many ties" else scores


@pytest.mark.parametrize("kind", ["distinct", "many ties"])
@pytest.mark.parametrize(("name", "arguments", "options"), MADE)
def test_scores_are_those_of_transformers(name, arguments, options, kind):
    ours, theirs = made(name, arguments, options)
    scores = scores_of(kind)
    before = scores.clone()
    torch.testing.assert_close(ours(REPEATING, scores), theirs(REPEATING, scores.clone()), rtol=0, atol=0)
    assert torch.equal(scores, before), "the model's logits were overwritten"


@pytest.mark.parametrize("kind", ["distinct", "many ties"])
@pytest.mark.parametrize(("name", "arguments", "options"), MADE[1:6])
def test_narrowing_keeps_the_distribution(name, arguments, options, kind):
    ours, theirs = made(name, arguments, options)
    scores = scores_of(kind)
    narrowed = ours.narrow(scores)
    if isinstance(ours, TopKLogitsWarper) and ours.top_k > scores.shape[1]:
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
    assert TopPLogitsWarper(0.9).narrow(torch.zeros(1, 3001)) is None


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
    [
        {"forced_eos_token_id": [3001]},
        {"bad_words_ids": [[5], [6, 3001]]},
        {"sequence_bias": {(3001, 4): 1.0}},
    ],
    ids=str,
)
def test_tokens_beyond_the_vocabulary_are_refused(settings):
    (process,) = processors_for(GenerationConfig(**settings), 8, 9)
    with pytest.raises(ValueError, match="tokens must be below the vocabulary's size of 3001, got 3001"):
        process(REPEATING, scores_of("distinct"))
