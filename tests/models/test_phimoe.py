"""Phi-3.5-MoE beyond what all architectures show: its router, its scales, long texts."""

from functools import partial

import pytest
import torch
import transformers
from torch.testing import assert_close
from transformers.models.phimoe.modeling_phimoe import sparsemixer

from tests.models.mixtures import PHIMOE
from tests.models.tiny import SIZES, Case, counterpart, longrope, reference
from torchgguf.models import AutoModelForCausalLM, PhimoeConfig
from torchgguf.models.architectures.phimoe import sparse_mixer

SCALES = {"short_mscale": 1.2, "long_mscale": 1.2}


@pytest.mark.parametrize("jitter", [0.01, 0.3, 0.9])
def test_the_router_is_that_of_transformers(jitter):
    scores = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    weights, chosen = sparse_mixer(scores, jitter)
    expected, experts = sparsemixer(scores, jitter_eps=jitter, training=False)
    assert torch.equal(chosen, experts)
    assert_close(weights, expected)


def test_in_training_it_samples_as_that_of_transformers():
    """The same numbers choose the same experts; a second weight may be a third of theirs, or thrice it."""
    scores, found = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)), []
    for route in (partial(sparse_mixer, jitter=0.4, sampling=True), _theirs):
        torch.manual_seed(0)
        leaf = scores.clone().requires_grad_()
        weights, chosen = route(leaf)
        (gradient,) = torch.autograd.grad((weights[:, 0] * torch.arange(500)).sum(), leaf)
        found.append((weights[:, 0], weights[:, 1], chosen, gradient))
    (first, second, chosen, gradient), (their_first, their_second, experts, their_gradient) = found
    assert torch.equal(chosen, experts) and not torch.equal(chosen[:, 0], scores.argmax(dim=-1))
    assert_close(first, their_first, atol=1e-3, rtol=0)  # a third is 0.3333 there
    assert_close(gradient, their_gradient, atol=1e-3, rtol=1e-4)
    assert {round(share) for share in (3 * second / their_second).tolist()} == {1, 3, 9}


def _theirs(scores):
    return sparsemixer(scores, jitter_eps=0.4, training=True)


def test_gradients_reach_the_router():
    mixing = {**PHIMOE, "num_local_experts": 4, "router_jitter_noise": 0.4}
    model = counterpart(reference(Case("Phimoe", mixing))).train()
    ids = torch.arange(20).view(2, 10)
    model(ids, labels=ids, output_router_logits=True).loss.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )


@torch.no_grad()
def test_texts_beyond_the_first_length():
    """They have the long factors; transformers has the short ones for all."""
    scaling = longrope(8, original=10, longest=40, original_max_position_embeddings=10, **SCALES)
    theirs = reference(Case("Phimoe", {**scaling, "num_local_experts": 4}))
    ours = counterpart(theirs)
    ids = torch.arange(24).view(2, 12)
    assert_close(ours(ids[:, :10]).logits, theirs(ids[:, :10]).logits, atol=1e-4, rtol=0)
    theirs.config.rope_parameters["short_factor"] = theirs.config.rope_parameters["long_factor"]
    assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)


def test_scales_of_files(tmp_path):
    """Files state what the config does; llama.cpp's converter computes another factor from the lengths."""
    scaling = longrope(8, original=640, longest=2560, original_max_position_embeddings=640, **SCALES)
    case = Case("Phimoe", {**PHIMOE, **scaling, "num_local_experts": 4})
    ours = counterpart(reference(case))
    ours.save_gguf(tmp_path / "x.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf").config.rope_parameters
    assert {name: read[name] for name in SCALES} == pytest.approx(SCALES)
    transformers.PhimoeConfig(rope_parameters=read)  # which asks for both


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_experts_per_tok": 3}, "num_experts_per_tok must be 2, got 3"),
        ({"tie_word_embeddings": True, "lm_head_bias": True}, "lm_head_bias=True is unsupported with tie"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_type 'linear' is not supported"),
        (longrope(8, 10, 40, short_mscale=1.0, long_mscale=2.0), "must contain equal short_mscale and long"),
        (longrope(8, 10, 40), "must contain equal short_mscale and long_mscale, got \\[None, None\\]"),
    ],
)
def test_configs_that_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        PhimoeConfig(**{**SIZES, **fields})
