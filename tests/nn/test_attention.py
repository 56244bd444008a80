"""Masks against the definition, position by position; attention against softmax(QK/√D)V in float64."""

import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tests.nn import flash
from torchgguf.nn import ATTENTION_FUNCTIONS, AttentionMask, causal_mask, check_attention
from torchgguf.nn.attention import score_and_mix
from torchgguf.nn.masks import static_mask

CPU = torch.device("cpu")
EVERYWHERE = [name for name in ATTENTION_FUNCTIONS if name != "flash_attention_2"]
HALVES = (torch.float16, torch.bfloat16)


@st.composite
def situations(draw):
    """Batches of texts, padded on either side, the last positions of which are new."""
    total = draw(st.integers(1, 9))
    new = draw(st.integers(1, total))
    window = draw(st.none() | st.integers(1, 10))
    rows = draw(st.lists(st.tuples(st.integers(1, total), st.booleans()), min_size=1, max_size=3))
    padding = torch.zeros(len(rows), total, dtype=torch.long)
    for row, (length, on_the_left) in enumerate(rows):
        padding[row, total - length :] = int(on_the_left)
        padding[row, :length] = padding[row, :length] if on_the_left else 1
    return total, new, window, padding if draw(st.booleans()) else None, len(rows)


def sees(query: int, key: int, window: int | None) -> bool:
    return key <= query and (window is None or query - key < window)


@given(situations())
@settings(max_examples=300, deadline=None)
def test_masks(situation):
    total, new, window, padding, _ = situation
    mask = causal_mask(padding, new, total - new, window, CPU)
    allowed = mask.allowed
    if allowed is None:
        allowed = torch.ones(new, total, dtype=torch.bool)
        allowed = (allowed.tril() if mask.causal else allowed)[None, None]
        assert not mask.causal or new == total
    check_allowed(situation, allowed)


@given(situations(), st.integers(0, 5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_masks_of_a_static_cache(situation, room, whole):
    total, new, window, padding, _ = situation
    capacity = total + room
    if padding is not None and whole:
        padding = torch.cat((padding, padding.new_ones(len(padding), room)), 1)
    mask = static_mask(padding, torch.arange(total - new, total), capacity, window)
    assert mask.allowed.shape[2:] == (new, capacity)
    assert not mask.allowed[..., total:].any()
    check_allowed(situation, mask.allowed[..., :total])


def check_allowed(situation, allowed):
    total, new, window, padding, batch = situation
    allowed = allowed.expand(batch, 1, new, total)
    for row in range(batch):
        for i, query in enumerate(range(total - new, total)):
            expected = [
                sees(query, key, window) and (padding is None or bool(padding[row, key]))
                for key in range(total)
            ]
            assert allowed[row, 0, i].tolist() == expected


def test_no_mask_is_made_where_the_kernels_know_it():
    ones = torch.ones(2, 12, dtype=torch.long)
    for padding in (None, ones):
        assert causal_mask(padding, 12, 0, None, CPU).allowed is None
        assert causal_mask(padding, 12, 0, 12, CPU).allowed is None
        assert causal_mask(padding, 1, 11, None, CPU).allowed is None
        assert causal_mask(padding, 1, 11, 12, CPU).allowed is None
    assert causal_mask(None, 1, 11, 5, CPU).allowed is not None
    assert causal_mask(None, 2, 10, None, CPU).allowed is not None


def exact(query, key, value, padding, window, scaling):
    """What comes out, and the probabilities: NaN where padding has nothing to look at."""
    new, total = query.shape[2], key.shape[2]
    seen = torch.tensor([[sees(i, j, window) for j in range(total)] for i in range(total - new, total)])
    allowed = seen & padding.bool()[:, None, None]
    groups = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(groups, 1) for x in (key, value))
    scores = (query.double() @ key.mT * scaling).masked_fill(~allowed, -torch.inf)
    probabilities = scores.softmax(-1)
    return (probabilities @ value).float(), probabilities.float()


@pytest.mark.parametrize("implementation", EVERYWHERE)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(("new", "past"), [(7, 0), (3, 4), (1, 6), (1, 0)])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_attention(implementation, heads, kv_heads, new, past, window, padded):
    total, scaling = new + past, 0.3
    query, key = torch.randn(2, heads, new, 16), torch.randn(2, kv_heads, total, 16)
    value = torch.randn(2, kv_heads, total, 16)
    padding = torch.ones(2, total, dtype=torch.long)
    padding[0, : total // 3] = 0 if padded else 1
    mask = causal_mask(padding, new, past, window, CPU)
    output, probabilities = ATTENTION_FUNCTIONS[implementation](query, key, value, mask, scaling, 0.0)
    expected_output, expected_probabilities = exact(query, key, value, padding, window, scaling)
    assert output.isfinite().all()  # nobody reads what padding gets, but it must not be NaN
    meaningful = expected_output.isfinite().all(-1)
    assert_close(output[meaningful], expected_output[meaningful], atol=1e-5, rtol=0)
    if probabilities is not None:
        assert_close(probabilities[meaningful], expected_probabilities[meaningful], atol=1e-6, rtol=0)


class Largest(TorchDispatchMode):
    """Records the size of the largest result of an operator."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.size = max(self.size, result.numel())
        return result


def test_keys_that_heads_share_are_not_copied():
    """In long texts, copies of them for each head would take most of the time of a token."""
    query, cached = torch.randn(1, 8, 1, 16), torch.randn(2, 1, 2, 600, 16)
    key, value = cached[:, :, :, :500]  # as a cache with room for more returns them
    with Largest() as largest:
        score_and_mix(query, key, value, AttentionMask(None, False, None), 0.3, 0.0, softcap=5.0)
    assert largest.size <= key.numel()


@pytest.mark.parametrize("implementation", EVERYWHERE)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("new", [1, 5])
def test_scores_in_the_wider_dtype_of_queries_and_keys(implementation, dtype, new):
    """Scores near 100 are whole numbers in bfloat16: what comes out shows that they were not made in it."""
    query, key = 10 + torch.randn(2, 2, new, 1) / 30, 10 + torch.randn(2, 2, 9, 1) / 30
    value = torch.randn(2, 2, 9, 16).to(dtype)
    mask = causal_mask(None, new, 9 - new, None, CPU)
    output, probabilities = ATTENTION_FUNCTIONS[implementation](query, key, value, mask, 1.0, 0.0)
    expected, weights = exact(query, key, value, torch.ones(2, 9), None, 1.0)
    assert output.dtype is dtype
    assert_close(output.float(), expected, atol=4 * torch.finfo(dtype).eps, rtol=0)
    if probabilities is not None:
        assert_close(probabilities, weights.to(dtype), atol=torch.finfo(dtype).eps, rtol=0)


@given(situations(), st.integers(0, 3), st.booleans())
@settings(max_examples=200, deadline=None)
def test_flash_attention_sees_what_the_others_see(situation, room, wider):
    """Rows reach the package without padding, and come back to their places; static caches have room left."""
    total, new, window, padding, batch = situation
    capacity, dtype = total + room, torch.float16
    query, value = torch.randn(batch, 4, new, 16), torch.randn(batch, 2, capacity, 16).to(dtype)
    key = torch.randn(batch, 2, capacity, 16)
    query, key = (x.to(dtype).float() if wider else x.to(dtype) for x in (query, key))
    places = torch.arange(total - new, total)
    mask = causal_mask(padding, new, total - new, window, CPU)
    if room > 0:
        mask = static_mask(padding, places, capacity, window)
    with pytest.MonkeyPatch.context() as monkeypatch:
        flash.install(monkeypatch)
        output, _ = ATTENTION_FUNCTIONS["flash_attention_2"](query, key, value, mask, 0.3, 0.0)
    assert output.dtype is dtype and output.shape == query.shape
    padding = torch.ones(batch, total, dtype=torch.long) if padding is None else padding
    expected, _ = exact(query, key[:, :, :total], value[:, :, :total], padding, window, 0.3)
    real = padding[:, -new:].bool()[:, None, :, None]
    assert_close(torch.where(real, output.float(), 0), torch.where(real, expected, 0), atol=5e-3, rtol=0)


def test_flash_attention_hands_gradients_back(monkeypatch):
    flash.install(monkeypatch)
    padding = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    mask, real = causal_mask(padding, 5, 0, None, CPU), padding[:, None, :, None]
    gradients = []
    for implementation in ("flash_attention_2", "eager"):
        generator = torch.Generator().manual_seed(0)
        heads = [torch.randn(2, 2, 5, 16, generator=generator).half().requires_grad_() for _ in range(3)]
        output, _ = ATTENTION_FUNCTIONS[implementation](*heads, mask, 0.3, 0.0)
        (output * real).float().square().sum().backward()
        gradients.append([x.grad for x in heads])
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, atol=1e-2, rtol=1e-2)


def test_flash_attention_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(ImportError, match=r"'flash_attention_2' needs .* pip install flash-attn"):
        check_attention("flash_attention_2")
    flash.install(monkeypatch)
    check_attention("flash_attention_2")
    heads = torch.randn(1, 2, 3, 16)
    with pytest.raises(ValueError, match="float16 or bfloat16, not float32"):
        ATTENTION_FUNCTIONS["flash_attention_2"](
            heads, heads, heads, causal_mask(None, 3, 0, None, CPU), 0.3, 0.0
        )
    biased = AttentionMask(None, False, torch.zeros(1, 2, 3, 3))
    with pytest.raises(ValueError, match="with a bias on the scores"):
        ATTENTION_FUNCTIONS["flash_attention_2"](heads, heads, heads, biased, 0.3, 0.0)


def test_unknown_attention():
    with pytest.raises(ValueError, match=r"'flash'.*sdpa, eager, flash_attention_2"):
        check_attention("flash")
