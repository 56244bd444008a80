"""Beam search against transformers' on the same weights: tokens, rows and scores."""

import itertools

import pytest
import torch
import transformers

from tests.generation.conftest import TWINS, prompts
from tests.pairs import every_pair
from tests.support import SMOLLM2
from torchgguf import AutoModelForCausalLM, GenerationConfig

# Many tokens end a text, so that beams end early and at different lengths.
ENDS = torch.randperm(397, generator=torch.Generator().manual_seed(1))[:60].add(3).tolist()
EVERYTHING = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}


def check_alike(ours, theirs):
    assert torch.equal(ours.sequences, theirs.sequences)
    assert torch.equal(ours.beam_indices, theirs.beam_indices)
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, atol=1e-4, rtol=1e-6)
    for ours_steps, theirs_steps in ((ours.scores, theirs.scores), (ours.logits, theirs.logits)):
        assert len(ours_steps) == len(theirs_steps)
        for step in zip(ours_steps, theirs_steps, strict=True):
            torch.testing.assert_close(*step, atol=1e-4, rtol=0)


PENALTIES, EARLY, BEAMS = [1.0, 0.0, -1.5, 2.5], [False, True, "never"], [2, 5]
# All rules with one model: what they mean does not depend on it. With the others, any two of them.
RULES = [
    *itertools.product(["llama"], PENALTIES, EARLY, BEAMS),
    *every_pair([kind for kind in TWINS if kind != "llama"], PENALTIES, EARLY, BEAMS),
]


@pytest.mark.parametrize(("twins", "penalty", "early", "beams"), RULES, indirect=["twins"])
def test_rules_are_those_of_transformers(twins, penalty, early, beams):
    rules = {"length_penalty": penalty, "early_stopping": early, "num_beams": beams}
    settings = {**prompts(), **rules, **EVERYTHING, "num_return_sequences": 2, "max_new_tokens": 10}
    for ends in (ENDS, ENDS[:2], None):
        theirs = twins.theirs.generate(**settings, eos_token_id=ends)
        check_alike(twins.ours.generate(**settings, eos_token_id=ends), theirs)


SETTINGS = [
    {"min_new_tokens": 4},
    {"min_length": 12},
    {"max_length": 13},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"bad_words_ids": [[7], [8, 9]], "suppress_tokens": list(range(100, 300)), "renormalize_logits": True},
    {"forced_eos_token_id": ENDS[0]},
    {"suppress_tokens": [i for i in range(400) if i not in (5, ENDS[0])]},  # fewer tokens than beams
    {"exponential_decay_length_penalty": (2, 1.3)},
    {"use_cache": False},
    {"pad_token_id": 0},
    {"pad_token_id": None},
    {"num_return_sequences": 4},
]


@pytest.mark.parametrize("twins", ["llama", "gpt2"], indirect=True)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_settings_mean_what_they_mean_in_transformers(twins, settings):
    settings = {"max_new_tokens": 8, "eos_token_id": ENDS, "num_beams": 4} | settings | prompts()
    if "max_length" in settings:
        del settings["max_new_tokens"]
    assert torch.equal(twins.ours.generate(**settings), twins.theirs.generate(**settings))


@pytest.mark.parametrize(
    "how",
    [{}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.6, "top_k": 0}, {"min_p": 0.3, "typical_p": 0.5}],
)
def test_beam_sampling_draws_what_transformers_draws(twins, how):
    settings = {**prompts(), **EVERYTHING, **how, "do_sample": True, "num_beams": 3, "eos_token_id": ENDS[:5]}
    drawn = []
    for model in twins:
        torch.manual_seed(3)
        drawn.append(model.generate(**settings, max_new_tokens=10))
    check_alike(drawn[1], drawn[0])


def test_beam_sampling_is_repeatable_with_a_generator(twins):
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return twins.ours.generate(
            **prompts(), do_sample=True, num_beams=3, max_new_tokens=9, generator=generator
        )

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("chunk", [None, 4])
def test_padding_on_the_right_changes_nothing(twins, cache, chunk):
    settings = {"num_beams": 3, "max_new_tokens": 8, "eos_token_id": ENDS[:9], "num_return_sequences": 3}
    expected = twins.theirs.generate(**prompts("left"), **settings)
    batch = prompts("right")
    out = twins.ours.generate(**batch, **settings, cache_implementation=cache, prefill_chunk_size=chunk)
    assert torch.equal(out[:, :9], batch["input_ids"].repeat_interleave(3, 0))
    assert torch.equal(out[:, 9:], expected[:, 9:])


def test_custom_processors_and_criteria(twins):
    """Texts end where they hold token 50 twice; criteria are shown the scores so far."""
    steps = []

    def twice(input_ids, scores, **_):
        steps.append(len(scores))
        return (input_ids == 50).sum(1) >= 2

    class Prefer50(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores + 3 * torch.nn.functional.one_hot(torch.tensor(50), scores.shape[1])

    settings = {
        **prompts(),
        **EVERYTHING,
        "num_beams": 3,
        "max_new_tokens": 8,
        "eos_token_id": ENDS[:2],
        "logits_processor": transformers.LogitsProcessorList([Prefer50()]),
        "stopping_criteria": transformers.StoppingCriteriaList([twice]),
    }
    theirs = twins.theirs.generate(**settings)
    told, steps = steps, []
    check_alike(twins.ours.generate(**settings), theirs)
    assert steps == told


def test_one_beam_of_several_rows_is_greedy(twins):
    settings = {**prompts(), "max_new_tokens": 8}
    assert torch.equal(twins.ours.generate(**settings, num_beams=1), twins.theirs.generate(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_beams": 2, "num_return_sequences": 3},
            "num_return_sequences must be at most num_beams=2, got 3",
        ),
        ({"num_beams": 0}, "num_beams must be a whole number, at least 1, not 0"),
        ({"num_beams": 2, "early_stopping": "always"}, 'early_stopping must be True, False or "never"'),
        ({"num_beams": 2, "num_beam_groups": 2}, "num_beam_groups=2 is not supported"),
        (
            {"num_beams": 2, "streamer": transformers.TextStreamer(None)},
            "streaming with num_beams is unsupported",
        ),
    ],
)
def test_contradictions_are_refused(twins, settings, message):
    with pytest.raises(ValueError, match=message):
        twins.ours.generate(**prompts(), **settings)


def test_beams_are_not_streamed(twins):
    with pytest.raises(ValueError, match="streaming with num_beams is unsupported"):
        twins.ours.generate_stream(**prompts(), num_beams=2)


@pytest.mark.slow
def test_beams_of_a_real_model():
    ours = AutoModelForCausalLM.from_pretrained(SMOLLM2, dequantize=True).eval()
    hf = transformers.LlamaForCausalLM(transformers.LlamaConfig(**ours.config.to_dict())).eval()
    hf.load_state_dict(ours.state_dict())
    ids = torch.tensor([[2, 2, 504, 3575, 282], [504, 2365, 6354, 16438, 27003]])
    settings = {"input_ids": ids, "attention_mask": (ids != 2).long(), "num_beams": 4, "max_new_tokens": 16}
    settings |= {"eos_token_id": 2, "pad_token_id": 2, "num_return_sequences": 2, "no_repeat_ngram_size": 3}
    ours.generation_config = GenerationConfig()
    assert torch.equal(ours.generate(**settings), hf.generate(**settings, do_sample=False))
