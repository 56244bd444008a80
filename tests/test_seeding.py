"""One seed for all generators, the same numbers as after transformers' `set_seed`."""

import random

import numpy as np
import torch
import transformers

import torchgguf


def drawn() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


def test_the_numbers_of_transformers():
    transformers.set_seed(3)
    expected = drawn()
    torchgguf.set_seed(3)
    assert drawn() == expected


def test_deterministic_algorithms():
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torchgguf.set_seed(3, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
