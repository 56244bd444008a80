"""Caches outlive the mode that made them: they are copied, and go on in another mode."""

import copy
import itertools

import pytest
import torch

from tests.models.tiny import CASES, counterpart, reference
from tests.nn.hybrid import Hybrid
from torchgguf.nn import DynamicCache, StaticCache

MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}
KINDS = {"dynamic": lambda model: DynamicCache(), "static": lambda model: StaticCache(model.config, 16)}
IDS = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["attention", "recurrent"])
def model(request):
    torch.manual_seed(0)
    return counterpart(reference(CASES["llama"])) if request.param == "attention" else Hybrid().eval()


def read(model, cache, mode, start, end):
    with mode():
        return model(IDS[:, start:end], cache=cache).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modes", list(itertools.product(MODES, repeat=3)), ids="-".join)
def test_a_cache_goes_on_in_any_mode(model, modes, kind):
    if kind == "static" and "grad" in modes:
        pytest.skip("a static cache holds no graph")
    cache = KINDS[kind](model)
    expected = read(model, None, torch.no_grad, 0, 12)
    # Two reads in each mode: the first keeps what came, the second grows it.
    twice = [mode for mode in modes for _ in range(2)]
    bounds = itertools.pairwise([0, 3, 5, 6, 8, 9, 12])
    logits = [read(model, cache, MODES[mode], *ends) for mode, ends in zip(twice, bounds, strict=True)]
    torch.testing.assert_close(torch.cat(logits, 1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modes", list(itertools.product(MODES, repeat=2)), ids="-".join)
def test_a_copy_and_what_it_was_copied_from_are_independent(model, modes, kind):
    made, used = (MODES[mode] for mode in modes)
    if kind == "static" and "grad" in modes:
        pytest.skip("a static cache holds no graph")
    cache = KINDS[kind](model)
    read(model, cache, made, 0, 4)
    read(model, cache, made, 4, 5)
    copied = copy.deepcopy(cache)
    assert copied.get_seq_length() == cache.get_seq_length() == 5
    expected = read(model, None, torch.no_grad, 0, 12)[:, 5:]
    read(model, copy.deepcopy(copied), used, 9, 12)  # other tokens: what they write must not be seen
    for each in (copied, cache):
        torch.testing.assert_close(read(model, each, used, 5, 12), expected, atol=1e-4, rtol=0)


def test_a_copy_keeps_places_shared():
    """All states of a static cache count their positions in one room, in a copy as well."""
    model = counterpart(reference(CASES["llama"]))
    cache = StaticCache(model.config, 16)
    read(model, cache, torch.no_grad, 0, 4)
    copied = copy.deepcopy(cache)
    assert {id(state.room) for _, state in copied.states()} == {id(copied.room)} != {id(cache.room)}


def test_gradients_flow_into_what_follows_a_copy():
    model = counterpart(reference(CASES["llama"]))
    cache = DynamicCache()
    read(model, cache, torch.enable_grad, 0, 4)
    model(IDS[:, 4:6], cache=copy.deepcopy(cache)).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad[IDS[:, 4:6].unique()].abs().sum() > 0
