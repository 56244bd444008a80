"""Checkpoints: states that forget what they were go back to them."""

import copy

import pytest
import torch
from torch.testing import assert_close

from tests.nn.hybrid import VOCABULARY, Hybrid
from torchgguf.nn import DynamicCache, StaticCache

MAKERS = {"dynamic": DynamicCache, "static": lambda **options: StaticCache(None, 40, **options)}


def tokens(length, rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (rows, length), generator=generator)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("layers", ["mam", "amm", "mmm"])
def test_a_text_goes_on_from_a_checkpoint(make, layers):
    model, cache, ids = Hybrid(layers), make(), tokens(12)
    model(ids[:, :5], cache=cache)
    cache.checkpoint()
    model(ids[:, 5:8], cache=cache)
    cache.checkpoint()
    model(ids[:, 8:], cache=cache)
    assert cache.forgets
    assert [cache.crop_point(n) for n in (12, 11, 8, 7, 5, 4, -1)] == [12, 8, 8, 5, 5, 0, 8]
    with pytest.raises(ValueError, match=r"layer \d must be cropped to 0, 5, 8 or to 12, got 6"):
        cache.crop(6)
    for length in (8, 5):
        cache.crop(length)
        assert cache.get_seq_length() == length
        other = torch.cat((ids[:, :length], tokens(4, seed=length)), dim=1)
        expected = model(other, use_cache=False).logits[:, length:]
        assert_close(model(other[:, length:], cache=cache).logits, expected)
    assert cache.crop_point(7) == 5  # what came after the place gone back to is forgotten
    cache.crop(0)
    assert cache.get_seq_length() == 0


def test_rows_of_checkpoints_follow_those_of_the_batch():
    model, cache, ids = Hybrid(), DynamicCache(), tokens(8, rows=3)
    model(ids[:, :5], cache=cache)
    cache.checkpoint()
    model(ids[:, 5:], cache=cache)
    cache.reorder_cache(torch.tensor([2, 0]))
    cache.batch_repeat_interleave(2)
    cache.crop(5)
    rows = ids[[2, 2, 0, 0]]
    assert_close(model(rows[:, 5:], cache=cache).logits, model(rows, use_cache=False).logits[:, 5:])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_generation_makes_checkpoints(make):
    model, cache = Hybrid("mmm"), make(checkpoint_every=4, max_checkpoints=3)
    ids = tokens(10, rows=1)
    expected = model.generate(ids, max_new_tokens=8, use_cache=False)
    assert torch.equal(model.generate(ids, max_new_tokens=8, cache=cache), expected)
    assert [cache.crop_point(n) for n in (17, 15, 11, 7)] == [17, 12, 8, 0]  # of 4, 8, 12, 16 the latest
    cache = copy.deepcopy(cache)
    cache.crop(cache.crop_point(9))
    assert torch.equal(model.generate(expected[:, :10], max_new_tokens=8, cache=cache), expected)


def test_keys_and_values_need_no_checkpoints():
    model, cache = Hybrid("aa"), DynamicCache(checkpoint_every=2)
    model.generate(tokens(9, rows=1), max_new_tokens=3, cache=cache)
    assert not cache.forgets
    assert cache.crop_point(5) == 5
    assert len(cache._checkpoints.lengths) == 0


def test_invalid_intervals():
    with pytest.raises(ValueError, match="max_checkpoints must be at least 0, got -1"):
        DynamicCache(max_checkpoints=-1)
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1, got 0"):
        DynamicCache(checkpoint_every=0)
