"""Fast selection chooses what torch's own operators choose."""

import pytest
import torch

from torchgguf.generation.sampling import argmax, draw, top_candidates


@pytest.mark.parametrize("n", [1, 63, 50257, 128256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_argmax_is_the_first_largest(n, dtype):
    scores = torch.randn(4, n, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(argmax(scores), scores.argmax(-1))
    assert argmax(torch.zeros(2, n, dtype=dtype)).tolist() == [0, 0]


@pytest.mark.parametrize("n, k", [(50257, 1), (50257, 100), (151936, 80), (300, 80), (64, 64)])
def test_top_candidates_are_those_of_topk(n, k):
    scores = torch.randn(4, n, generator=torch.Generator().manual_seed(1))
    scores[0, n // 2 : n // 2 + k] = 9.0  # neighbours share a chunk
    best, index = top_candidates(scores, k)
    expected = scores.topk(k)
    assert torch.equal(best, expected.values)
    assert torch.equal(scores.gather(1, index), best)
    assert all(len(set(row)) == k for row in index.tolist())
    assert torch.equal(index[1:], expected.indices[1:])


def test_draw_follows_the_probabilities():
    generator = torch.Generator().manual_seed(2)
    probability = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    drawn = draw(probability.log().expand(40_000, -1), generator)
    counts = drawn.bincount(minlength=6)
    assert counts[1] == counts[5] == 0
    error = counts / 40_000 - probability
    deviation = (probability * (1 - probability) / 40_000).sqrt()
    assert (error.abs() <= 4 * deviation).all()


@pytest.mark.parametrize("row", [[-torch.inf] * 3, [1.0, torch.nan, 2.0]], ids=str)
def test_nothing_to_draw(row):
    with pytest.raises(RuntimeError, match="no token to draw"):
        draw(torch.tensor([[0.0, 1.0, 2.0], row]))


def test_draw_is_repeatable():
    scores = torch.randn(3, 1000)
    draws = [draw(scores, torch.Generator().manual_seed(7)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
