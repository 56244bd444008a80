"""What `return_dict_in_generate` returns, against transformers on the same weights."""

import pytest
import torch

from tests.generation.conftest import Twins, prompts
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.transformers import cache_of
from torchgguf.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from torchgguf.nn import DynamicCache

ENDS = list(range(3, 60))
WANTED = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}


def check_close(ours, theirs):
    """Compare tensors, or tuples of tuples of them."""
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        return
    assert len(ours) == len(theirs)
    for pair in zip(ours, theirs, strict=True):
        check_close(*pair)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.5, "min_new_tokens": 3},
        {"renormalize_logits": True},
        {"use_cache": False},
    ],
    ids=str,
)
def test_greedy_scores_are_those_of_transformers(twins: Twins, settings):
    settings = {**prompts(), **WANTED, **settings, "eos_token_id": ENDS, "max_new_tokens": 9}
    theirs, ours = (model.generate(**settings) for model in twins)
    assert isinstance(ours, GenerateDecoderOnlyOutput)
    assert torch.equal(ours.sequences, theirs.sequences)
    check_close(ours.scores, theirs.scores)
    check_close(ours.logits, theirs.logits)
    assert ours.attentions is None and ours.hidden_states is None
    if settings.get("use_cache") is False:
        assert ours.cache is None
    else:
        assert ours.cache.get_seq_length() == cache_of(theirs).get_seq_length()


@pytest.mark.parametrize("settings", [{"top_k": 7, "temperature": 1.4}, {"top_k": 0, "top_p": 0.8}], ids=str)
def test_sampled_tokens_come_from_the_scores_of_transformers(twins: Twins, settings):
    """Fed the same tokens, transformers makes the same scores; asking for them changes no token."""
    settings = {**settings, "do_sample": True, "max_new_tokens": 1}
    ids = prompts(lengths=(6, 6))["input_ids"]
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        ours = twins.ours.generate(ids, **settings, **WANTED, generator=generator.clone_state())
        check_close(ours.scores, twins.theirs.generate(ids, **settings, **WANTED).scores)
        ids = twins.ours.generate(ids, **settings, generator=generator)
        assert torch.equal(ours.sequences, ids)


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}, {"prefill_chunk_size": 4}], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen2-sliding", "gpt2", "bloom"])
def test_states_are_those_of_transformers(kind, way):
    theirs = reference(CASES[kind])
    ours = counterpart(theirs, attn_implementation="eager")
    batch = prompts(lengths=(8, 8))
    settings = {**way, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 1}
    settings |= {"return_dict_in_generate": True, "output_hidden_states": True, "output_attentions": True}
    expected, out = theirs.generate(**batch, **settings), ours.generate(**batch, **settings)
    assert torch.equal(out.sequences, expected.sequences)
    check_close(out.hidden_states, expected.hidden_states)
    if kind != "qwen2-sliding":  # whose sliding cache drops keys, and with them columns
        check_close(out.attentions, expected.attentions)
    assert out.scores is None and out.logits is None


@pytest.mark.parametrize("normalize_logits", [False, True])
@pytest.mark.parametrize("way", [{}, {"num_beams": 3, "num_return_sequences": 3}], ids=str)
def test_transition_scores_are_those_of_transformers(twins: Twins, way, normalize_logits):
    settings = {**prompts(), **WANTED, **way, "eos_token_id": ENDS, "max_new_tokens": 9}
    for model in twins:
        out = model.generate(**settings)
        indices = (out.beam_indices,) if way else ()
        arguments = (out.sequences, out.scores, *indices)
        transitions = [
            twin.compute_transition_scores(*arguments, normalize_logits=normalize_logits) for twin in twins
        ]
        torch.testing.assert_close(transitions[1], transitions[0], atol=1e-5, rtol=0)


def test_beam_scores_are_those_of_their_tokens(twins: Twins):
    settings = {**prompts(), **WANTED, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.7}
    out = twins.ours.generate(**settings, eos_token_id=ENDS, max_new_tokens=9)
    assert isinstance(out, GenerateBeamDecoderOnlyOutput)
    transitions = twins.ours.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    lengths = (out.beam_indices >= 0).sum(1)
    torch.testing.assert_close(transitions.sum(1) / lengths**0.7, out.sequences_scores, atol=1e-4, rtol=0)


def test_what_is_not_asked_for_is_not_there(twins: Twins):
    out = twins.ours.generate(**prompts(), return_dict_in_generate=True, num_beams=2, max_new_tokens=3)
    assert out.keys() == ("sequences", "beam_indices", "cache")
    out = twins.ours.generate(**prompts(), return_dict_in_generate=True, max_new_tokens=3)
    assert out.keys() == ("sequences", "cache")
    with pytest.warns(UserWarning, match="output_scores has no effect without return_dict_in_generate=True"):
        assert isinstance(twins.ours.generate(**prompts(), output_scores=True), torch.Tensor)


def test_what_is_returned_can_be_gone_on_with(twins: Twins):
    """Neither the cache nor the scores forbid to write into them, or to train on."""
    ids = prompts(lengths=(6,))["input_ids"]
    out = twins.ours.generate(ids, **WANTED, max_new_tokens=4)
    assert isinstance(out.cache, DynamicCache)
    longer = twins.ours.generate(out.sequences, cache=out.cache, max_new_tokens=3)
    assert torch.equal(longer, twins.ours.generate(ids, max_new_tokens=7))
    weight = torch.ones((), requires_grad=True)
    (out.scores[0] * weight).log_softmax(-1)[0, 0].backward()
    assert weight.grad is not None
