"""Prompt lookup: the same texts as without, with fewer steps; the guesses are those of transformers."""

import pytest
import torch
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from tests.models.tiny import CASES, counterpart, reference
from torchgguf.generation.preparation import prepare
from torchgguf.nn import DynamicCache

NEW = 40


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request):
    return counterpart(reference(CASES[request.param]))


@pytest.fixture(scope="module")
def prompt(model) -> torch.Tensor:
    """A text and what the model says after it, twice: what follows then is known from before."""
    ids = torch.randint(3, 400, (1, 9), generator=torch.Generator().manual_seed(0))
    return model.generate(ids, max_new_tokens=20, eos_token_id=None).repeat(1, 2)


@pytest.mark.parametrize("count", [1, 5])
def test_greedy_texts_are_the_same(model, prompt, count):
    options = {"max_new_tokens": NEW, "eos_token_id": None, "do_sample": False}
    expected = model.generate(prompt, **options)
    assert model.generate(prompt, prompt_lookup_num_tokens=count, **options).tolist() == expected.tolist()


@pytest.mark.parametrize("count, forwards", [(1, 21), (5, 8)])
def test_a_text_that_repeats_itself_needs_fewer_steps(model, count, forwards):
    """One step for the prompt; then each scores the last token and all that are guessed."""

    def repeat(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).scatter(1, (ids[:, -1:] - 2) % 5 + 3, 0.0)

    prompt = torch.tensor([[3, 4, 5, 6, 7, 3, 4]])
    options = {"max_new_tokens": NEW, "eos_token_id": None, "do_sample": False}
    options |= {"prompt_lookup_num_tokens": count, "logits_processor": [repeat]}
    run = prepare(model, prompt, **options).run
    assert [int(token) for token in run.steps()] == [3 + (2 + i) % 5 for i in range(NEW)]
    assert run.plan.context.forwards == forwards


def test_samples_are_the_same(model, prompt):
    """Chosen by the same scores and the same numbers, whether a guess is right or wrong."""
    for seed in range(3):
        texts = [
            model.generate(
                prompt,
                do_sample=True,
                temperature=0.3,
                max_new_tokens=NEW,
                eos_token_id=None,
                generator=torch.Generator().manual_seed(seed),
                **options,
            ).tolist()
            for options in ({}, {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 1})
        ]
        assert texts[0] == texts[1]


def test_the_cache_holds_all_but_the_last_token(model, prompt):
    cache = DynamicCache()
    text = model.generate(
        prompt, cache=cache, prompt_lookup_num_tokens=5, max_new_tokens=11, eos_token_id=None
    )
    assert cache.get_seq_length() == text.shape[1] - 1
    again = model.generate(text, cache=cache, max_new_tokens=9, eos_token_id=None)
    assert again.tolist() == model.generate(text, max_new_tokens=9, eos_token_id=None).tolist()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_guesses_are_those_of_transformers(model, size):
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        ids = torch.randint(3, 7, (1, 25), generator=generator)
        peer = PromptLookupCandidateGenerator(
            num_output_tokens=4, max_matching_ngram_size=size, max_length=100, vocab_size=400
        )
        expected = peer.get_candidates(ids)[0][0, 25:].tolist()
        options = {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": size, "max_new_tokens": 1}
        found = prepare(model, ids, **options).run.plan.context._look_up()
        assert ([] if found is None else found[0].tolist()) == expected


def test_states_that_forget_what_they_were_are_read_without_guesses():
    model = counterpart(reference(CASES["qwen35"]))
    ids = torch.tensor([[3, 4, 5, 6, 3, 4, 5, 6, 3, 4]])
    options = {"max_new_tokens": 9, "eos_token_id": None}
    expected = model.generate(ids, **options)
    assert model.generate(ids, prompt_lookup_num_tokens=3, **options).tolist() == expected.tolist()


def test_what_is_refused(model, prompt):
    wrong = "continues one prompt of tokens, once"
    for options, message in (
        ({"num_beams": 2}, wrong),
        ({"assistant": "mtp"}, wrong),
        ({"use_cache": False}, "needs a cache that grows"),
        ({"return_dict_in_generate": True, "output_hidden_states": True}, "does not record states"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(prompt, prompt_lookup_num_tokens=3, max_new_tokens=2, **options)
