"""Seed all generators of random numbers at once."""

import random

import numpy as np
import torch


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seed the generators of Python, numpy and torch, of all devices.

    Args:
        seed: of all of them.
        deterministic: also choose deterministic algorithms in torch, which may be slower.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True)
