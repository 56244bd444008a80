"""Gradient checkpointing: the gradients of transformers, from layers that run twice."""

import copy
import warnings
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference, training
from torchgguf.nn import DynamicCache

KINDS = {case.kind: case for case in reversed(CASES.values())}  # the first case of each kind
IDS = torch.randint(0, 400, (2, 11), generator=torch.Generator().manual_seed(0))
PADDED = torch.tensor([[1] * 11, [1] * 7 + [0] * 4])


@pytest.fixture(scope="module", params=KINDS)
def models(request):
    theirs = reference(KINDS[request.param])
    return training(theirs), training(counterpart(theirs))


def step(model, **inputs):
    """The loss, and the gradients of one training step."""
    model.zero_grad()
    labels = IDS.masked_fill(PADDED == 0, -100)
    loss = model(IDS, attention_mask=PADDED, labels=labels, **inputs).loss
    loss.backward()
    # Corrections that routers choose by are not weighed: they have none.
    named = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    return loss.detach(), {name: gradient.clone() for name, gradient in named}


def runs(model, work) -> Counter:
    """How often each layer runs while `work` is done."""
    count: Counter = Counter()
    layers = model.get_submodule(f"{model.base_model_prefix}.{model.base_model.layers_name}")
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args, i=i: count.update([i]))
        for i, layer in enumerate(layers)
    ]
    work()
    for hook in hooks:
        hook.remove()
    assert set(count) == set(range(len(layers)))
    return count


@pytest.mark.parametrize(("every", "expected"), [(1, [2, 2, 2]), (2, [2, 1, 2]), (3, [2, 1, 1])])
@pytest.mark.parametrize("offload", [False, True])
def test_as_trainer_calls_it(models, every, expected, offload):
    """By its newer name, for some layers, or with inputs in the memory of the CPU."""
    _, ours = models
    _, plain = step(ours)
    ours.activation_checkpointing_enable(
        activation_checkpointing_kwargs=None, every_n_layers=every, offload=offload
    )
    try:
        assert ours.is_activation_checkpointing
        with warnings.catch_warnings(record=True):  # no cache is made, not a part of one either
            assert ours(IDS, labels=IDS, use_cache=True).cache.get_seq_length() == 0
        _, again = step(ours, use_cache=False)
        counts = runs(ours, lambda: step(ours, use_cache=False))
    finally:
        ours.activation_checkpointing_disable()
    assert [counts[i] for i in range(3)] == expected
    for name, gradient in again.items():
        assert_close(gradient, plain[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("reentrant", [True, False])
def test_behind_a_frozen_embedding(models, reentrant):
    """As adapters train: only matrices inside layers have gradients."""
    theirs, _ = models
    ours = training(counterpart(theirs))
    for name, parameter in ours.named_parameters():
        inner = name.endswith(("v_proj.weight", "in_proj.weight"))
        parameter.requires_grad_(inner or "query_key" in name or "attn" in name)
    ours(IDS, labels=IDS).loss.backward()
    expected = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert expected
    ours.zero_grad()
    ours.gradient_checkpointing_enable({"use_reentrant": reentrant})
    ours(IDS, labels=IDS, use_cache=False).loss.backward()
    for name, gradient in expected.items():
        assert_close(ours.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_no_such_share_of_layers():
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(ValueError, match="every_n_layers must be at least 1, got 0"):
        model.activation_checkpointing_enable(every_n_layers=0)


@pytest.mark.parametrize("options", [None, {"use_reentrant": False}, {"use_reentrant": True}], ids=str)
def test_gradients(models, options):
    theirs, ours = models
    expected_loss, expected = step(theirs)
    loss, plain = step(ours)
    ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    try:
        assert ours.is_gradient_checkpointing
        again_loss, again = step(ours, use_cache=False)
        assert set(runs(ours, lambda: step(ours, use_cache=False)).values()) == {2}
    finally:
        ours.gradient_checkpointing_disable()
    assert not ours.is_gradient_checkpointing
    assert set(runs(ours, lambda: step(ours)).values()) == {1}
    assert torch.equal(again_loss, loss)
    assert_close(loss, expected_loss, atol=1e-5, rtol=0)
    for name, gradient in again.items():
        assert torch.equal(gradient, plain[name]), name
        assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_dropout_is_the_same_in_both_runs():
    config = {**KINDS["Llama"].config, "attention_dropout": 0.5}
    ours = counterpart(reference(type(KINDS["Llama"])("Llama", config)), "eager").train()
    steps = []
    for enable in (ours.gradient_checkpointing_disable, ours.gradient_checkpointing_enable):
        enable()
        torch.manual_seed(5)
        steps.append(step(ours, use_cache=False))
    assert torch.equal(steps[0][0], steps[1][0])
    assert all(torch.equal(steps[0][1][name], gradient) for name, gradient in steps[1][1].items())


def test_less_is_kept_for_the_backward_pass(models):
    ours = models[1]
    kept = []
    for enable in (ours.gradient_checkpointing_disable, ours.gradient_checkpointing_enable):
        enable()
        numbers = 0

        def pack(x):
            nonlocal numbers
            numbers += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            ours(IDS, labels=IDS, use_cache=False)
        kept.append(numbers)
    ours.gradient_checkpointing_disable()
    assert kept[1] < kept[0] / 2


def test_no_cache_while_training(models):
    """None is made, with a warning; one that holds something is refused; without training it is as ever."""
    ours = copy.deepcopy(models[1])
    ours.gradient_checkpointing_enable()
    with pytest.warns(UserWarning, match="no cache is made while gradient checkpointing"):
        output = ours(IDS, labels=IDS, use_cache=True)
    assert output.cache is None or output.cache.get_seq_length() == 0
    output.loss.backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(IDS, labels=IDS, use_cache=False).loss.backward()
        with torch.no_grad():
            cache = ours(IDS[:, :8], use_cache=True).cache
            assert cache.get_seq_length() == 8
        with pytest.raises(ValueError, match="unsupported with a cache that holds positions"):
            ours(IDS[:, 8:], cache=cache)
        expected = models[0].eval()(IDS).logits[:, 8:]
        models[0].train()
        assert_close(ours.eval()(IDS[:, 8:], cache=cache).logits, expected, atol=1e-4, rtol=0)
        filled = ours(IDS, cache=DynamicCache()).cache
        assert filled.get_seq_length() == IDS.shape[1]


def test_generating_between_steps(models):
    """`generate` needs its cache, whatever the model is in the middle of."""
    theirs, ours = models[0].eval(), copy.deepcopy(models[1])
    ours.gradient_checkpointing_enable()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = theirs.generate(IDS, attention_mask=torch.ones_like(IDS), **options)
    assert torch.equal(ours.generate(IDS, attention_mask=torch.ones_like(IDS), **options), expected)
    theirs.train()


def test_unknown_options():
    ours = counterpart(reference(KINDS["Llama"]))
    with pytest.raises(
        ValueError, match=r"no option 'reentrant'; these are: .*preserve_rng_state.*use_reentrant"
    ):
        ours.gradient_checkpointing_enable({"reentrant": False})
    assert not ours.is_gradient_checkpointing
