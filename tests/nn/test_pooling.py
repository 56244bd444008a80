"""Vectors of texts from states of tokens: padding on either side has no part in them."""

import pytest
import torch
from torch.testing import assert_close

from torchgguf.nn import POOLINGS, pool_states

STATES = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])
EXPECTED = {
    "mean": torch.stack([STATES[0, :3].mean(0), STATES[1, 2:].mean(0)]),
    "cls": torch.stack([STATES[0, 0], STATES[1, 2]]),
    "last": torch.stack([STATES[0, 2], STATES[1, 3]]),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_each(pooling):
    expected = EXPECTED[pooling]
    assert_close(pool_states(STATES, MASK, pooling), expected)
    lengths = expected.norm(dim=-1, keepdim=True)
    assert_close(pool_states(STATES, MASK, pooling, normalize=True), expected / lengths)
    assert pool_states(STATES.bfloat16(), MASK, pooling).dtype is torch.float32
    assert torch.equal(pool_states(STATES * 0, MASK, pooling, normalize=True), torch.zeros(2, 3))


def test_unknown():
    with pytest.raises(ValueError, match="pooling='rank' is unsupported; these are: mean, cls, last"):
        pool_states(STATES, MASK, "rank")
