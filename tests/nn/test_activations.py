"""Every activation gives what the one of its name gives in transformers."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close
from transformers.activations import ACT2FN

from torchgguf.nn.activations import ACTIVATIONS, find_activation


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_it_is_the_one_of_its_name(name):
    x = torch.linspace(-8, 8, 1001)
    assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_it_is_copied_and_pickled(name):
    """Models hold their activations, and are sent to other processes."""
    x = torch.linspace(-8, 8, 101)
    for again in (pickle.loads(pickle.dumps(ACTIVATIONS[name])), copy.deepcopy(ACTIVATIONS[name])):
        assert torch.equal(again(x), ACTIVATIONS[name](x))


def test_an_unknown_one_is_named():
    with pytest.raises(ValueError, match=r"activation_function 'gelu_7' is not supported.*gelu_new"):
        find_activation("activation_function", "gelu_7")
