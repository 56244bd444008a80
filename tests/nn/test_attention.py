"""Masks against the definition, position by position; attention against softmax(QK/√D)V in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from torchgguf.nn import ATTENTION, causal_mask
from torchgguf.nn.masks import static_mask

CPU = torch.device("cpu")


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
            if padding is not None and not padding[row, query]:
                assert allowed[row, 0, i].any()  # nobody reads it, but it must not be NaN
                continue
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
    new, total = query.shape[2], key.shape[2]
    places = range(total - new, total)
    seen = torch.tensor([[sees(i, j, window) for j in range(total)] for i in places])
    itself = torch.tensor([[i == j for j in range(total)] for i in places])  # what padding sees
    allowed = seen & (padding.bool()[:, None, None] | itself)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(groups, 1) for x in (key, value))
    scores = (query.double() @ key.mT * scaling).masked_fill(~allowed, -torch.inf)
    probabilities = scores.softmax(-1)
    return (probabilities @ value).float(), probabilities.float()


@pytest.mark.parametrize("implementation", ATTENTION)
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
    output, probabilities = ATTENTION[implementation](query, key, value, mask, scaling, 0.0)
    expected_output, expected_probabilities = exact(query, key, value, padding, window, scaling)
    assert_close(output, expected_output, atol=1e-5, rtol=0)
    if probabilities is not None:
        assert_close(probabilities, expected_probabilities, atol=1e-6, rtol=0)
