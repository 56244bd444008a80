"""Linear biases against transformers' Bloom, and against ggml's formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from transformers import BloomConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from torchgguf.nn import ATTENTION_FUNCTIONS, DynamicCache, StaticCache, alibi_mask, alibi_slopes

HEADS, DIM, LENGTH = 5, 8, 12
# No padding; on either side, and inside; a row without any.
PADDING = {
    "none": None,
    "sides": [[0] * 4 + [1] * 8, [1] * 9 + [0] * 3, [1] * 12],
    "inside": [[1] * 3 + [0] * 4 + [1] * 5, [1] * 12, [0, 1] * 6],
}


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 7, 8, 12, 16, 24, 71, 112])
def test_slopes(heads):
    """As ggml_soft_max_ext computes them, with the bias of 8 that llama.cpp gives to Bloom."""
    power = 2 ** math.floor(math.log2(heads))
    low, high = 2 ** (-8 / power), 2 ** (-4 / power)
    expected = [low ** (h + 1) if h < power else high ** (2 * (h - power) + 1) for h in range(heads)]
    assert_close(alibi_slopes(heads), torch.tensor(expected))


def heads_of(seed: int) -> torch.Tensor:
    return torch.randn(3, HEADS, LENGTH, DIM, generator=torch.Generator().manual_seed(seed))


def static_cache() -> StaticCache:
    return StaticCache(BloomConfig(n_layer=1), max_cache_len=20)


def expected_output(padding: torch.Tensor | None) -> torch.Tensor:
    """Attention with the biases that transformers makes, and nothing of this package."""
    kept = torch.ones(3, LENGTH, dtype=torch.long) if padding is None else padding
    bias = build_alibi_tensor(kept, HEADS, torch.float32).view(3, HEADS, 1, LENGTH)
    allowed = torch.ones(LENGTH, LENGTH).tril().bool() & kept.bool()[:, None, None]
    scores = heads_of(1) @ heads_of(2).transpose(2, 3) / math.sqrt(DIM) + bias
    return F.softmax(scores.masked_fill(~allowed, torch.finfo().min), dim=-1) @ heads_of(3)


@pytest.mark.parametrize(
    ("make_cache", "pieces"),
    [
        (lambda: None, [12]),
        *(
            (make, pieces)
            for make in (DynamicCache, static_cache)
            for pieces in ([12], [5, 4, 1, 1, 1], [1] * 12)
        ),
    ],
)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
def test_attention(padding, implementation, make_cache, pieces):
    mask = None if padding is None else torch.tensor(padding)
    cache, outputs, start = make_cache(), [], 0
    for query, key, value in zip(*(heads_of(i).split(pieces, dim=2) for i in (1, 2, 3)), strict=True):
        end = start + query.shape[2]
        embeds = torch.zeros(3, end - start, 1)
        biased = alibi_mask(alibi_slopes(HEADS), None if mask is None else mask[:, :end], embeds, cache)
        if cache is not None:
            key, value = cache.update(key, value, 0)
        outputs.append(ATTENTION_FUNCTIONS[implementation](query, key, value, biased, DIM**-0.5, 0.0)[0])
        start = end
    actual, expected = torch.cat(outputs, dim=2), expected_output(mask)
    assert actual.isfinite().all()
    real = torch.ones(3, LENGTH).bool() if mask is None else mask.bool()
    assert_close(actual.transpose(1, 2)[real], expected.transpose(1, 2)[real], atol=2e-5, rtol=0)


def test_a_static_cache_may_be_given_a_mask_of_its_whole_length():
    masks = []
    padding = (torch.arange(20) > 0).long()[None]
    for lengths in ((2, 3), (20, 20)):
        cache = static_cache()
        for new, length in zip((2, 1), lengths, strict=True):
            key = torch.zeros(1, HEADS, new, DIM)
            biased = alibi_mask(alibi_slopes(HEADS), padding[:, :length], torch.zeros(1, new, 1), cache)
            masks.append(biased.bias)
            cache.update(key, key, 0)
    assert torch.equal(masks[0], masks[2]) and torch.equal(masks[1], masks[3])


def test_flash_attention_takes_no_biases():
    query = torch.zeros(1, HEADS, 2, DIM, dtype=torch.bfloat16)
    biased = alibi_mask(alibi_slopes(HEADS), None, query.new_zeros(1, 2, 1), None)
    with pytest.raises(ValueError, match="with a bias on the scores"):
        ATTENTION_FUNCTIONS["flash_attention_2"](query, query, query, biased, 1.0, 0.0)
